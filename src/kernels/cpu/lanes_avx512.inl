// Sixteen lanes of AVX-512: the primitives that attention_body.inl and elementwise_body.inl are
// written over. Included inside a target region; QUERN_LANES_VNNI says whether VNNI may be used.

using F = __m512;     // 16 floats
using I = __m512i;    // 16 int32
using M = __mmask16;  // one bit a lane

// Registers: 4 vectors of sums for each of 6 rows + 4 of values + 1 broadcast = 29 of 32.
constexpr int kTileRows = 6;
constexpr int kTileVectors = 4;

inline F load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, F v) { _mm512_storeu_ps(p, v); }
inline M first_lanes(int n) { return static_cast<M>((1u << n) - 1u); }
inline F load_part(const float* p, int n) { return _mm512_maskz_loadu_ps(first_lanes(n), p); }
inline void store_part(float* p, F v, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), v); }
inline F load_bf16(const uint16_t* p) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

inline F load_f16(const void* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
}

inline F set1(float x) { return _mm512_set1_ps(x); }
inline F add(F a, F b) { return _mm512_add_ps(a, b); }
inline F sub(F a, F b) { return _mm512_sub_ps(a, b); }
inline F mul(F a, F b) { return _mm512_mul_ps(a, b); }
inline F div(F a, F b) { return _mm512_div_ps(a, b); }
inline F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
inline F fma_minus(F a, F b, F c) { return _mm512_fmsub_ps(a, b, c); }
inline F max_of(F a, F b) { return _mm512_max_ps(a, b); }  // b where either is NaN
inline F min_of(F a, F b) { return _mm512_min_ps(a, b); }

inline M lanes_between(int begin, int end) {
  begin = begin < 0 ? 0 : begin > 16 ? 16 : begin;
  end = end < begin ? begin : end > 16 ? 16 : end;
  return static_cast<M>(((1u << end) - 1u) & ~((1u << begin) - 1u));
}
inline M less(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
inline F select(M m, F yes, F no) { return _mm512_mask_blend_ps(m, no, yes); }

inline I bits(F v) { return _mm512_castps_si512(v); }
inline F from_bits(I v) { return _mm512_castsi512_ps(v); }
inline I load_i(const void* p) { return _mm512_loadu_si512(p); }
inline I set1_i(int32_t x) { return _mm512_set1_epi32(x); }
inline I and_i(I a, I b) { return _mm512_and_si512(a, b); }
inline I max_unsigned(I a, I b) { return _mm512_max_epu32(a, b); }
inline I to_exponent(I v) { return _mm512_slli_epi32(v, 23); }
inline I upper_halves(I v) { return _mm512_slli_epi32(v, 16); }  // of what the lower halves hold
inline F to_float(I v) { return _mm512_cvtepi32_ps(v); }
inline I round_to_int(F v) { return _mm512_cvtps_epi32(v); }

// 16 codes of a byte each; the lanes of v fit.
inline void store_bytes(void* p, I v) {
  _mm_storeu_si128(static_cast<__m128i*>(p), _mm512_cvtepi32_epi8(v));
}

// acc + the four products of an unsigned byte of u and a signed byte of s in each lane.
inline I dot_bytes(I acc, I u, I s) {
#if QUERN_LANES_VNNI
  return _mm512_dpbusd_epi32(acc, u, s);
#else
  const I even = _mm512_madd_epi16(_mm512_and_si512(u, _mm512_set1_epi16(0xff)),
                                   _mm512_srai_epi16(_mm512_slli_epi16(s, 8), 8));
  const I odd = _mm512_madd_epi16(_mm512_srli_epi16(u, 8), _mm512_srai_epi16(s, 8));
  return _mm512_add_epi32(acc, _mm512_add_epi32(even, odd));
#endif
}

// Lane i meets lane i + 8, then i + 4, i + 2, i + 1.
inline float sum(F v) {
  const __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}
inline float largest(F v) {
  const __m256 a = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  const __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 c = _mm_max_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}
inline uint32_t largest_unsigned(I v) {
  const __m256i a = _mm256_max_epu32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
  const __m128i b = _mm_max_epu32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
  const __m128i c = _mm_max_epu32(b, _mm_unpackhi_epi64(b, b));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(_mm_max_epu32(c, _mm_srli_epi64(c, 32))));
}
