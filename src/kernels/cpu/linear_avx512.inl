// The operations of linear_body.inl and linear_tiles.inl on AVX-512 registers; the including file
// adds the dot products.

using F = __m512;
using I = __m512i;
using B = __m512i;

constexpr int kPrefetchBytes = 2048;  // ahead in the stream of codes; the panels follow one another

template <int kBytes>
inline void prefetch(const uint8_t* at) {
  for (int i = 0; i < kBytes; i += 64) _mm_prefetch(at + i, _MM_HINT_T0);
}

// To the second-level cache.
inline void prefetch_far(const uint8_t* at) { _mm_prefetch(at, _MM_HINT_T1); }

// For the intrinsic, compilers read.
inline void prefetch_to_write(const float* at) { asm volatile("prefetchw (%0)" ::"r"(at)); }

inline int32_t load_i32(const int8_t* at) {
  int32_t value;
  __builtin_memcpy(&value, at, sizeof value);
  return value;
}

inline F f_zero() { return _mm512_setzero_ps(); }

inline F f_set(float x) { return _mm512_set1_ps(x); }

inline F f_load(const float* at) { return _mm512_loadu_ps(at); }

inline void f_store(float* at, F x) { _mm512_storeu_ps(at, x); }

inline F f_add(F a, F b) { return _mm512_add_ps(a, b); }

inline F f_mul(F a, F b) { return _mm512_mul_ps(a, b); }

inline F f_fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }

inline F f_from_i(I x) { return _mm512_cvtepi32_ps(x); }

inline F f_from_f16(const std::byte* at) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
}

inline I i_zero() { return _mm512_setzero_si512(); }

inline I i_set(int32_t x) { return _mm512_set1_epi32(x); }

inline I i_load(const float* at) { return _mm512_loadu_si512(at); }

inline I i_load(const int32_t* at) { return _mm512_loadu_si512(at); }

inline void i_store(int32_t* at, I x) { _mm512_storeu_si512(at, x); }

inline I i_sub(I a, I b) { return _mm512_sub_epi32(a, b); }

inline I i_add(I a, I b) { return _mm512_add_epi32(a, b); }

inline I i_and(I a, I b) { return _mm512_and_si512(a, b); }

inline I i_or(I a, I b) { return _mm512_or_si512(a, b); }

inline I i_xor(I a, I b) { return _mm512_xor_si512(a, b); }

inline I i_max(I a, I b) { return _mm512_max_epi32(a, b); }

template <int kBits>
inline I i_shift_left(I a) {
  return _mm512_slli_epi32(a, kBits);
}

inline I i_round(F x) { return _mm512_cvtps_epi32(x); }

inline int32_t i_reduce_max(I x) { return _mm512_reduce_max_epi32(x); }

inline int32_t i_reduce_add(I x) { return _mm512_reduce_add_epi32(x); }

inline I i_from_u8(const std::byte* at) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
}

inline void i_store_bytes(int8_t* at, I x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(at), _mm512_cvtepi32_epi8(x));
}

inline B b_load(const uint8_t* at) { return _mm512_loadu_si512(at); }

inline void b_store(int8_t* at, B x) { _mm512_storeu_si512(at, x); }

inline B b_set(int x) { return _mm512_set1_epi8(static_cast<char>(x)); }

inline B b_sub(B a, B b) { return _mm512_sub_epi8(a, b); }

// Each of 16 bytes in all four bytes of its lane.
inline B b_repeat(const std::byte* at) {
  return _mm512_shuffle_epi8(i_from_u8(at),
                             _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0));
}

inline B b_low_nibbles(B x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }

inline B b_high_nibbles(B x) {
  return _mm512_and_si512(_mm512_srli_epi16(x, 4), _mm512_set1_epi8(15));
}

// Bits 2 kPlace and up of each byte of `pairs` above the nibbles.
template <int kPlace>
inline B b_six_bits(B nibbles, B pairs) {
  constexpr int kShift = 4 - 2 * kPlace;
  constexpr int kAndOr = 0xea;  // a & b | c
  B moved = pairs;
  if constexpr (kShift > 0) moved = _mm512_slli_epi16(pairs, static_cast<unsigned>(kShift));
  if constexpr (kShift < 0) moved = _mm512_srli_epi16(pairs, static_cast<unsigned>(-kShift));
  return _mm512_ternarylogic_epi32(moved, _mm512_set1_epi8(0x30), nibbles, kAndOr);
}
