// The operations of linear_body.inl on NEON, sixteen lanes as four registers.

struct F {
  float32x4_t v[4];
};

struct I {
  int32x4_t v[4];
};

struct B {
  uint8x16_t v[4];
};

using Short = I;

constexpr int kChains = 2;
constexpr int kGroupedColumns = 4;  // 4 x 4 sums + 8 weights + 1 broadcast = 25 of 32
constexpr int kPrefetchBytes = 2048;

// r.v[i] = expression for each register i.
#define QUERN_EACH_REGISTER(Type, expression)                   \
  Type r;                                                       \
  QUERN_UNROLL for (int i = 0; i < 4; ++i) r.v[i] = expression; \
  return r

// To the second-level cache.
inline void prefetch_far(const uint8_t* at) { __builtin_prefetch(at, 0, 2); }

template <int kBytes>
inline void prefetch(const uint8_t* at) {
  for (int i = 0; i < kBytes; i += 64) __builtin_prefetch(at + i);
}

inline int32_t load_i32(const int8_t* at) {
  int32_t value;
  __builtin_memcpy(&value, at, sizeof value);
  return value;
}

inline F f_set(float x) { QUERN_EACH_REGISTER(F, vdupq_n_f32(x)); }

inline F f_zero() { return f_set(0); }

inline F f_load(const float* at) { QUERN_EACH_REGISTER(F, vld1q_f32(at + 4 * i)); }

inline void f_store(float* at, F x) {
  QUERN_UNROLL for (int i = 0; i < 4; ++i) vst1q_f32(at + 4 * i, x.v[i]);
}

inline F f_add(F x, F y) { QUERN_EACH_REGISTER(F, vaddq_f32(x.v[i], y.v[i])); }

inline F f_mul(F x, F y) { QUERN_EACH_REGISTER(F, vmulq_f32(x.v[i], y.v[i])); }

inline F f_fma(F x, F y, F z) { QUERN_EACH_REGISTER(F, vfmaq_f32(z.v[i], x.v[i], y.v[i])); }

inline F f_from_i(I x) { QUERN_EACH_REGISTER(F, vcvtq_f32_s32(x.v[i])); }

inline uint16x4_t load_4_halves(const std::byte* at) {
  return vreinterpret_u16_u8(vld1_u8(reinterpret_cast<const uint8_t*>(at)));
}

inline F f_from_f16(const std::byte* at) {
  QUERN_EACH_REGISTER(F, vcvt_f32_f16(vreinterpret_f16_u16(load_4_halves(at + 8 * i))));
}

inline I i_set(int32_t x) { QUERN_EACH_REGISTER(I, vdupq_n_s32(x)); }

inline I i_zero() { return i_set(0); }

inline I i_load(const float* at) {
  QUERN_EACH_REGISTER(I, vreinterpretq_s32_f32(vld1q_f32(at + 4 * i)));
}

inline I i_add(I x, I y) { QUERN_EACH_REGISTER(I, vaddq_s32(x.v[i], y.v[i])); }

inline I i_and(I x, I y) { QUERN_EACH_REGISTER(I, vandq_s32(x.v[i], y.v[i])); }

inline I i_or(I x, I y) { QUERN_EACH_REGISTER(I, vorrq_s32(x.v[i], y.v[i])); }

inline I i_xor(I x, I y) { QUERN_EACH_REGISTER(I, veorq_s32(x.v[i], y.v[i])); }

inline I i_max(I x, I y) { QUERN_EACH_REGISTER(I, vmaxq_s32(x.v[i], y.v[i])); }

template <int kBits>
inline I i_shift_left(I x) {
  QUERN_EACH_REGISTER(I, vshlq_n_s32(x.v[i], kBits));
}

inline I i_round(F x) { QUERN_EACH_REGISTER(I, vcvtnq_s32_f32(x.v[i])); }

inline int32_t i_reduce_max(I x) {
  return vmaxvq_s32(vmaxq_s32(vmaxq_s32(x.v[0], x.v[1]), vmaxq_s32(x.v[2], x.v[3])));
}

inline int32_t i_reduce_add(I x) {
  return vaddvq_s32(vaddq_s32(vaddq_s32(x.v[0], x.v[1]), vaddq_s32(x.v[2], x.v[3])));
}

inline I i_from_u8(const std::byte* at) {
  const uint8x16_t bytes = vld1q_u8(reinterpret_cast<const uint8_t*>(at));
  const uint16x8_t low = vmovl_u8(vget_low_u8(bytes));
  const uint16x8_t high = vmovl_high_u8(bytes);
  return {{vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(low))),
           vreinterpretq_s32_u32(vmovl_high_u16(low)),
           vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(high))),
           vreinterpretq_s32_u32(vmovl_high_u16(high))}};
}

inline void i_store_bytes(int8_t* at, I x) {
  const int16x8_t low = vcombine_s16(vmovn_s32(x.v[0]), vmovn_s32(x.v[1]));
  const int16x8_t high = vcombine_s16(vmovn_s32(x.v[2]), vmovn_s32(x.v[3]));
  vst1q_s8(at, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
}

inline B b_load(const uint8_t* at) { QUERN_EACH_REGISTER(B, vld1q_u8(at + 16 * i)); }

inline B b_low_nibbles(B x) { QUERN_EACH_REGISTER(B, vandq_u8(x.v[i], vdupq_n_u8(15))); }

inline B b_high_nibbles(B x) { QUERN_EACH_REGISTER(B, vshrq_n_u8(x.v[i], 4)); }

// Bits 2 kPlace and up of each byte of `pairs` above the nibbles.
template <int kPlace>
inline B b_six_bits(B nibbles, B pairs) {
  constexpr int8_t kShift = 4 - 2 * kPlace;
  QUERN_EACH_REGISTER(B, vorrq_u8(nibbles.v[i], vandq_u8(vshlq_u8(pairs.v[i], vdupq_n_s8(kShift)),
                                                         vdupq_n_u8(0x30))));
}

// Codes of a byte less kByteBase, as signed bytes.
constexpr int kByteBase = 128;

inline B b_signed(B codes) { QUERN_EACH_REGISTER(B, veorq_u8(codes.v[i], vdupq_n_u8(128))); }

// Bytes below 128, or signed ones.
inline I i_dot_signed(I sum, B weights, int32_t x) {
  const int8x16_t broadcast = vreinterpretq_s8_s32(vdupq_n_s32(x));
  QUERN_EACH_REGISTER(I, vdotq_s32(sum.v[i], vreinterpretq_s8_u8(weights.v[i]), broadcast));
}

inline I i_dot_bytes(I sum, B codes, int32_t x) { return i_dot_signed(sum, b_signed(codes), x); }

inline Short short_begin(I sum) { return sum; }

inline Short short_dot_nibbles(Short sum, B codes, int32_t x) {
  return i_dot_signed(sum, codes, x);
}

inline I short_end(I, Short sum) { return sum; }

inline void dot_six_bits(I& a, I& b, B first, int32_t x_first, B second, int32_t x_second) {
  a = i_dot_signed(a, first, x_first);
  b = i_dot_signed(b, second, x_second);
}

inline int32x4_t dot_halves(int32x4_t sum, int32x4_t pairs, int32_t x) {
  const int32x4_t low = vshrq_n_s32(vshlq_n_s32(pairs, 16), 16);
  const int32x4_t high = vshrq_n_s32(pairs, 16);
  return vmlaq_n_s32(vmlaq_n_s32(sum, low, static_cast<int16_t>(x)), high, x >> 16);
}

inline I i_dot_halves(I sum, I pairs, int32_t x) {
  QUERN_EACH_REGISTER(I, dot_halves(sum.v[i], pairs.v[i], x));
}

#undef QUERN_EACH_REGISTER
