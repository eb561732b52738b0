// What limit_body.inl needs on AVX2 but for v_product.

using V = __m256i;
using F = __m256;

constexpr int kSums = 10;
constexpr int64_t kOperations = 64;

inline V v_zero() { return _mm256_setzero_si256(); }

inline V v_load(const std::byte* at) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
}

inline V v_or(V a, V b) { return _mm256_or_si256(a, b); }

inline int64_t v_sum(V a) {
  return _mm256_extract_epi64(a, 0) | _mm256_extract_epi64(a, 1) | _mm256_extract_epi64(a, 2) |
         _mm256_extract_epi64(a, 3);
}

inline F f_set(float x) { return _mm256_set1_ps(x); }

inline F f_fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }

inline float f_first(F a) { return _mm256_cvtss_f32(a); }
