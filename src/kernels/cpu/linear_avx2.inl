// The operations of linear_body.inl on AVX2, sixteen lanes as two registers; the including file
// adds Short, kChains and the dot products.

struct F {
  __m256 a, b;
};

struct I {
  __m256i a, b;
};

using B = I;

constexpr int kGroupedColumns = 4;  // 4 x 2 sums + 4 weights + 2 broadcasts + 1 mask = 15 of 16
constexpr int kPrefetchBytes = 2048;

// To the second-level cache.
inline void prefetch_far(const uint8_t* at) { _mm_prefetch(at, _MM_HINT_T1); }

template <int kBytes>
inline void prefetch(const uint8_t* at) {
  for (int i = 0; i < kBytes; i += 64) _mm_prefetch(at + i, _MM_HINT_T0);
}

inline int32_t load_i32(const int8_t* at) {
  int32_t value;
  __builtin_memcpy(&value, at, sizeof value);
  return value;
}

inline F f_set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }

inline F f_zero() { return f_set(0); }

inline F f_load(const float* at) { return {_mm256_loadu_ps(at), _mm256_loadu_ps(at + 8)}; }

inline void f_store(float* at, F x) {
  _mm256_storeu_ps(at, x.a);
  _mm256_storeu_ps(at + 8, x.b);
}

inline F f_add(F x, F y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }

inline F f_mul(F x, F y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }

inline F f_fma(F x, F y, F z) {
  return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}

inline F f_from_i(I x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }

inline __m128i load_16_bytes(const std::byte* at) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
}

inline F f_from_f16(const std::byte* at) {
  return {_mm256_cvtph_ps(load_16_bytes(at)), _mm256_cvtph_ps(load_16_bytes(at + 16))};
}

inline I i_set(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }

inline I i_zero() { return i_set(0); }

inline I b_load(const void* at) {
  const auto* from = static_cast<const __m256i*>(at);
  return {_mm256_loadu_si256(from), _mm256_loadu_si256(from + 1)};
}

inline I i_load(const float* at) { return b_load(at); }

inline I i_add(I x, I y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }

inline I i_and(I x, I y) { return {_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)}; }

inline I i_or(I x, I y) { return {_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)}; }

inline I i_xor(I x, I y) { return {_mm256_xor_si256(x.a, y.a), _mm256_xor_si256(x.b, y.b)}; }

inline I i_max(I x, I y) { return {_mm256_max_epi32(x.a, y.a), _mm256_max_epi32(x.b, y.b)}; }

template <int kBits>
inline I i_shift_left(I x) {
  return {_mm256_slli_epi32(x.a, kBits), _mm256_slli_epi32(x.b, kBits)};
}

inline I i_round(F x) { return {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }

inline int32_t i_reduce_max(I x) {
  const __m256i half = _mm256_max_epi32(x.a, x.b);
  __m128i quarter = _mm_max_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  quarter = _mm_max_epi32(quarter, _mm_shuffle_epi32(quarter, 0x4e));
  return _mm_cvtsi128_si32(_mm_max_epi32(quarter, _mm_shuffle_epi32(quarter, 0xb1)));
}

inline int32_t i_reduce_add(I x) {
  const __m256i half = _mm256_add_epi32(x.a, x.b);
  __m128i quarter = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  quarter = _mm_add_epi32(quarter, _mm_shuffle_epi32(quarter, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(quarter, _mm_shuffle_epi32(quarter, 0xb1)));
}

inline I i_from_u8(const std::byte* at) {
  const __m128i bytes = load_16_bytes(at);
  return {_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8))};
}

inline void i_store_bytes(int8_t* at, I x) {
  // Packing works within 128-bit halves: 0 2 1 3 restores the order of the quarters.
  const __m256i halves = _mm256_permute4x64_epi64(_mm256_packs_epi32(x.a, x.b), 0xd8);
  const __m128i bytes =
      _mm_packs_epi16(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(at), bytes);
}

inline B b_low_nibbles(B x) { return i_and(x, i_set(0x0f0f0f0f)); }

inline B b_high_nibbles(B x) {
  return i_and({_mm256_srli_epi16(x.a, 4), _mm256_srli_epi16(x.b, 4)}, i_set(0x0f0f0f0f));
}

template <int kShift>
inline __m256i shifted(__m256i x) {
  return kShift >= 0 ? _mm256_slli_epi16(x, kShift) : _mm256_srli_epi16(x, -kShift);
}

// Bits 2 kPlace and up of each byte of `pairs` above the nibbles.
template <int kPlace>
inline B b_six_bits(B nibbles, B pairs) {
  constexpr int kShift = 4 - 2 * kPlace;
  return i_or(nibbles,
              i_and({shifted<kShift>(pairs.a), shifted<kShift>(pairs.b)}, i_set(0x30303030)));
}

// Sums stay in the order of the source: the compiler would rather add products up in trees, for
// which sixteen registers do not suffice.
inline __m256i in_order(__m256i sum) {
  asm("" : "+x"(sum));
  return sum;
}
