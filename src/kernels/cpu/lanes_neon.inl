// Sixteen lanes of NEON, four registers each: the primitives that attention_body.inl and
// elementwise_body.inl are written over.

struct F {
  float32x4_t v[4];
};
struct I {
  int32x4_t v[4];
};
struct M {
  uint32x4_t v[4];  // all bits of a lane set or none
};

// Registers: 2 vectors of 4 registers for each of 2 rows = 16 of 32, 8 of values and one broadcast.
constexpr int kTileRows = 2;
constexpr int kTileVectors = 2;

// r.v[i] = expression for each register i.
#define QUERN_EACH_REGISTER(Type, expression)                   \
  Type r;                                                       \
  QUERN_UNROLL for (int i = 0; i < 4; ++i) r.v[i] = expression; \
  return r

inline M lanes_between(int begin, int end) {
  alignas(16) static constexpr int32_t kLanes[16] = {0, 1, 2,  3,  4,  5,  6,  7,
                                                     8, 9, 10, 11, 12, 13, 14, 15};
  const int32x4_t first = vdupq_n_s32(begin);
  const int32x4_t limit = vdupq_n_s32(end);
  QUERN_EACH_REGISTER(M, vandq_u32(vcgeq_s32(vld1q_s32(kLanes + 4 * i), first),
                                   vcltq_s32(vld1q_s32(kLanes + 4 * i), limit)));
}

inline F load(const float* p) { QUERN_EACH_REGISTER(F, vld1q_f32(p + 4 * i)); }
inline void store(float* p, F v) {
  QUERN_UNROLL for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, v.v[i]);
}
inline F load_part(const float* p, int n) {
  float part[16] = {};
  for (int i = 0; i < n; ++i) part[i] = p[i];
  return load(part);
}
inline void store_part(float* p, F v, int n) {
  float part[16];
  store(part, v);
  for (int i = 0; i < n; ++i) p[i] = part[i];
}
inline F load_bf16(const uint16_t* p) {
  QUERN_EACH_REGISTER(F, vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16)));
}

inline F load_f16(const void* p) {
  const auto* from = static_cast<const uint16_t*>(p);
  QUERN_EACH_REGISTER(F, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from + 4 * i))));
}

inline F set1(float x) { QUERN_EACH_REGISTER(F, vdupq_n_f32(x)); }
inline F add(F a, F b) { QUERN_EACH_REGISTER(F, vaddq_f32(a.v[i], b.v[i])); }
inline F sub(F a, F b) { QUERN_EACH_REGISTER(F, vsubq_f32(a.v[i], b.v[i])); }
inline F mul(F a, F b) { QUERN_EACH_REGISTER(F, vmulq_f32(a.v[i], b.v[i])); }
inline F div(F a, F b) { QUERN_EACH_REGISTER(F, vdivq_f32(a.v[i], b.v[i])); }
inline F fma(F a, F b, F c) { QUERN_EACH_REGISTER(F, vfmaq_f32(c.v[i], a.v[i], b.v[i])); }
inline F fma_minus(F a, F b, F c) {
  QUERN_EACH_REGISTER(F, vfmaq_f32(vnegq_f32(c.v[i]), a.v[i], b.v[i]));
}

inline F max_of(F a, F b) {  // b where either is NaN
  QUERN_EACH_REGISTER(F, vbslq_f32(vcgtq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]));
}
inline F min_of(F a, F b) {
  QUERN_EACH_REGISTER(F, vbslq_f32(vcltq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]));
}

inline M less(F a, F b) { QUERN_EACH_REGISTER(M, vcltq_f32(a.v[i], b.v[i])); }
inline F select(M m, F yes, F no) { QUERN_EACH_REGISTER(F, vbslq_f32(m.v[i], yes.v[i], no.v[i])); }

inline I bits(F v) { QUERN_EACH_REGISTER(I, vreinterpretq_s32_f32(v.v[i])); }
inline F from_bits(I v) { QUERN_EACH_REGISTER(F, vreinterpretq_f32_s32(v.v[i])); }
inline I load_i(const void* p) {
  const auto* from = static_cast<const int8_t*>(p);
  QUERN_EACH_REGISTER(I, vreinterpretq_s32_s8(vld1q_s8(from + 16 * i)));
}
inline I set1_i(int32_t x) { QUERN_EACH_REGISTER(I, vdupq_n_s32(x)); }
inline I and_i(I a, I b) { QUERN_EACH_REGISTER(I, vandq_s32(a.v[i], b.v[i])); }
inline I max_unsigned(I a, I b) {
  QUERN_EACH_REGISTER(I, vreinterpretq_s32_u32(vmaxq_u32(vreinterpretq_u32_s32(a.v[i]),
                                                         vreinterpretq_u32_s32(b.v[i]))));
}
inline I to_exponent(I v) { QUERN_EACH_REGISTER(I, vshlq_n_s32(v.v[i], 23)); }
inline I upper_halves(I v) {  // of what the lower halves hold
  QUERN_EACH_REGISTER(I, vshlq_n_s32(v.v[i], 16));
}
inline F to_float(I v) { QUERN_EACH_REGISTER(F, vcvtq_f32_s32(v.v[i])); }

// The least integer for what does not fit, as on x86.
inline int32x4_t round_to_int(float32x4_t x) {
  const uint32x4_t fits = vcltq_f32(vabsq_f32(x), vdupq_n_f32(0x1p31f));
  return vbslq_s32(fits, vcvtnq_s32_f32(x), vdupq_n_s32(INT32_MIN));
}
inline I round_to_int(F v) { QUERN_EACH_REGISTER(I, round_to_int(v.v[i])); }

// 16 codes of a byte each; the lanes of v fit.
inline void store_bytes(void* p, I v) {
  const int16x8_t low = vcombine_s16(vmovn_s32(v.v[0]), vmovn_s32(v.v[1]));
  const int16x8_t high = vcombine_s16(vmovn_s32(v.v[2]), vmovn_s32(v.v[3]));
  vst1q_s8(static_cast<int8_t*>(p), vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
}

// acc + the four products of an unsigned byte of u and a signed byte of s in each lane.
inline int32x4_t dot_bytes(int32x4_t acc, uint8x16_t u, int8x16_t s) {
#if QUERN_LANES_I8MM
  return vusdotq_s32(acc, u, s);
#else
  // u = (u - 128) + 64 + 64.
  const int8x16_t half = vdupq_n_s8(64);
  acc = vdotq_s32(acc, vreinterpretq_s8_u8(veorq_u8(u, vdupq_n_u8(128))), s);
  return vdotq_s32(vdotq_s32(acc, half, s), half, s);
#endif
}
inline I dot_bytes(I acc, I u, I s) {
  QUERN_EACH_REGISTER(
      I, dot_bytes(acc.v[i], vreinterpretq_u8_s32(u.v[i]), vreinterpretq_s8_s32(s.v[i])));
}

// Lane i meets lane i + 8, then i + 4, i + 2, i + 1.
inline float sum(F v) {
  const float32x4_t a = vaddq_f32(vaddq_f32(v.v[0], v.v[2]), vaddq_f32(v.v[1], v.v[3]));
  const float32x2_t b = vadd_f32(vget_low_f32(a), vget_high_f32(a));
  return vget_lane_f32(b, 0) + vget_lane_f32(b, 1);
}
inline float max_of(float a, float b) { return a > b ? a : b; }  // b where either is NaN
inline float largest(F v) {
  const F a = max_of(F{{v.v[0], v.v[1], v.v[0], v.v[1]}}, F{{v.v[2], v.v[3], v.v[2], v.v[3]}});
  const float32x4_t b = vbslq_f32(vcgtq_f32(a.v[0], a.v[1]), a.v[0], a.v[1]);
  return max_of(max_of(vgetq_lane_f32(b, 0), vgetq_lane_f32(b, 2)),
                max_of(vgetq_lane_f32(b, 1), vgetq_lane_f32(b, 3)));
}
inline uint32_t largest_unsigned(I v) {
  uint32x4_t most = vreinterpretq_u32_s32(v.v[0]);
  QUERN_UNROLL for (int i = 1; i < 4; ++i) {
    most = vmaxq_u32(most, vreinterpretq_u32_s32(v.v[i]));
  }
  return vmaxvq_u32(most);
}

#undef QUERN_EACH_REGISTER
