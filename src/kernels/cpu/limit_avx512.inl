// What limit_body.inl needs on AVX-512 but for v_product.

using V = __m512i;
using F = __m512;

constexpr int kSums = 16;

inline V v_zero() { return _mm512_setzero_si512(); }

inline V v_load(const std::byte* at) { return _mm512_loadu_si512(at); }

inline V v_or(V a, V b) { return _mm512_or_si512(a, b); }

inline int64_t v_sum(V a) { return _mm512_reduce_or_epi64(a); }

inline F f_set(float x) { return _mm512_set1_ps(x); }

inline F f_fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }

inline float f_first(F a) { return _mm512_cvtss_f32(a); }

constexpr int64_t kOperations = 128;
