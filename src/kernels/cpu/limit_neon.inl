// What limit_body.inl needs on NEON but for v_product and kOperations.

using V = int32x4_t;
using F = float32x4_t;

constexpr int kSums = 16;

inline V v_zero() { return vdupq_n_s32(0); }

inline V v_load(const std::byte* at) { return vld1q_s32(reinterpret_cast<const int32_t*>(at)); }

inline V v_or(V a, V b) { return vorrq_s32(a, b); }

inline int64_t v_sum(V a) {
  const int64x2_t halves = vreinterpretq_s64_s32(a);
  return vgetq_lane_s64(halves, 0) | vgetq_lane_s64(halves, 1);
}

inline F f_set(float x) { return vdupq_n_f32(x); }

inline F f_fma(F a, F b, F c) { return vfmaq_f32(c, a, b); }

inline float f_first(F a) { return vgetq_lane_f32(a, 0); }
