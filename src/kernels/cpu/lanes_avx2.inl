// Sixteen lanes of AVX2, two registers each: the primitives that attention_body.inl and
// elementwise_body.inl are written over. Included inside a target region.

struct F {
  __m256 lo, hi;
};
struct I {
  __m256i lo, hi;
};
using M = F;  // all bits of a lane set or none

// Registers: 2 vectors of 2 registers for each of 3 rows = 12 of 16, values and broadcasts beside.
constexpr int kTileRows = 3;
constexpr int kTileVectors = 2;

inline M lanes_between(int begin, int end) {
  const __m256i low = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i high = _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15);
  const __m256i before = _mm256_set1_epi32(begin - 1);
  const __m256i limit = _mm256_set1_epi32(end);
  return {_mm256_castsi256_ps(
              _mm256_and_si256(_mm256_cmpgt_epi32(low, before), _mm256_cmpgt_epi32(limit, low))),
          _mm256_castsi256_ps(
              _mm256_and_si256(_mm256_cmpgt_epi32(high, before), _mm256_cmpgt_epi32(limit, high)))};
}

inline F load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, F v) {
  _mm256_storeu_ps(p, v.lo);
  _mm256_storeu_ps(p + 8, v.hi);
}
inline F load_part(const float* p, int n) {
  const M m = lanes_between(0, n);
  return {_mm256_maskload_ps(p, _mm256_castps_si256(m.lo)),
          _mm256_maskload_ps(p + 8, _mm256_castps_si256(m.hi))};
}
inline void store_part(float* p, F v, int n) {
  const M m = lanes_between(0, n);
  _mm256_maskstore_ps(p, _mm256_castps_si256(m.lo), v.lo);
  _mm256_maskstore_ps(p + 8, _mm256_castps_si256(m.hi), v.hi);
}
inline __m256 widen_bf16(const uint16_t* p) {
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
inline F load_bf16(const uint16_t* p) { return {widen_bf16(p), widen_bf16(p + 8)}; }

inline F load_f16(const void* p) {
  const auto* from = static_cast<const __m128i*>(p);
  return {_mm256_cvtph_ps(_mm_loadu_si128(from)), _mm256_cvtph_ps(_mm_loadu_si128(from + 1))};
}

inline F set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline F add(F a, F b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
inline F sub(F a, F b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
inline F mul(F a, F b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
inline F div(F a, F b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
inline F fma(F a, F b, F c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
inline F fma_minus(F a, F b, F c) {
  return {_mm256_fmsub_ps(a.lo, b.lo, c.lo), _mm256_fmsub_ps(a.hi, b.hi, c.hi)};
}
inline F max_of(F a, F b) {  // b where either is NaN
  return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}
inline F min_of(F a, F b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }

inline M less(F a, F b) {
  return {_mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ)};
}
inline F select(M m, F yes, F no) {
  return {_mm256_blendv_ps(no.lo, yes.lo, m.lo), _mm256_blendv_ps(no.hi, yes.hi, m.hi)};
}

inline I bits(F v) { return {_mm256_castps_si256(v.lo), _mm256_castps_si256(v.hi)}; }
inline F from_bits(I v) { return {_mm256_castsi256_ps(v.lo), _mm256_castsi256_ps(v.hi)}; }
inline I load_i(const void* p) {
  const auto* from = static_cast<const __m256i*>(p);
  return {_mm256_loadu_si256(from), _mm256_loadu_si256(from + 1)};
}
inline I set1_i(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
inline I and_i(I a, I b) { return {_mm256_and_si256(a.lo, b.lo), _mm256_and_si256(a.hi, b.hi)}; }
inline I max_unsigned(I a, I b) {
  return {_mm256_max_epu32(a.lo, b.lo), _mm256_max_epu32(a.hi, b.hi)};
}
inline I to_exponent(I v) { return {_mm256_slli_epi32(v.lo, 23), _mm256_slli_epi32(v.hi, 23)}; }
inline I upper_halves(I v) {  // of what the lower halves hold
  return {_mm256_slli_epi32(v.lo, 16), _mm256_slli_epi32(v.hi, 16)};
}
inline F to_float(I v) { return {_mm256_cvtepi32_ps(v.lo), _mm256_cvtepi32_ps(v.hi)}; }
inline I round_to_int(F v) { return {_mm256_cvtps_epi32(v.lo), _mm256_cvtps_epi32(v.hi)}; }

// The lowest byte of each lane.
inline __m128i lowest_bytes(__m256i v) {
  const __m256i pick =
      _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 4, 8, 12, -1,
                       -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
  const __m256i packed = _mm256_shuffle_epi8(v, pick);
  return _mm_unpacklo_epi32(_mm256_castsi256_si128(packed), _mm256_extracti128_si256(packed, 1));
}

// 16 codes of a byte each; the lanes of v fit.
inline void store_bytes(void* p, I v) {
  _mm_storeu_si128(static_cast<__m128i*>(p),
                   _mm_unpacklo_epi64(lowest_bytes(v.lo), lowest_bytes(v.hi)));
}

#if QUERN_LANES_VNNI
// The including file defines dpbusd(acc, u, s).
inline __m256i dot_bytes_8(__m256i acc, __m256i u, __m256i s) { return dpbusd(acc, u, s); }
#else
// Exact, where maddubs of two full bytes would saturate.
inline __m256i dot_bytes_8(__m256i acc, __m256i u, __m256i s) {
  const __m256i even = _mm256_madd_epi16(_mm256_and_si256(u, _mm256_set1_epi16(0xff)),
                                         _mm256_srai_epi16(_mm256_slli_epi16(s, 8), 8));
  const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(u, 8), _mm256_srai_epi16(s, 8));
  return _mm256_add_epi32(acc, _mm256_add_epi32(even, odd));
}
#endif

// acc + the four products of an unsigned byte of u and a signed byte of s in each lane.
inline I dot_bytes(I acc, I u, I s) {
  return {dot_bytes_8(acc.lo, u.lo, s.lo), dot_bytes_8(acc.hi, u.hi, s.hi)};
}

// Lane i meets lane i + 8, then i + 4, i + 2, i + 1.
inline float sum(F v) {
  const __m256 a = _mm256_add_ps(v.lo, v.hi);
  const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}
inline float largest(F v) {
  const __m256 a = _mm256_max_ps(v.lo, v.hi);
  const __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 c = _mm_max_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}
inline uint32_t largest_unsigned(I v) {
  const __m256i a = _mm256_max_epu32(v.lo, v.hi);
  const __m128i b = _mm_max_epu32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
  const __m128i c = _mm_max_epu32(b, _mm_unpackhi_epi64(b, b));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(_mm_max_epu32(c, _mm_srli_epi64(c, 32))));
}
