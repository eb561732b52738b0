// linear_body.inl on two registers with dot products of bytes. The including file defines
//   dpbusd(sum, a, b)  sum + the four products of unsigned bytes of a and signed bytes of b
//   dpwssd(sum, a, b)  sum + the two products of int16
// so that tests can compile it for processors that know these under another encoding.

#include "kernels/cpu/linear_avx2.inl"

using Short = I;

constexpr int kChains = 2;
constexpr int kByteBase = 0;

inline I i_dot_bytes(I sum, B codes, int32_t x) {
  const __m256i broadcast = _mm256_set1_epi32(x);
  return {in_order(dpbusd(sum.a, codes.a, broadcast)), in_order(dpbusd(sum.b, codes.b, broadcast))};
}

inline Short short_begin(I sum) { return sum; }

inline Short short_dot_nibbles(Short sum, B codes, int32_t x) { return i_dot_bytes(sum, codes, x); }

inline I short_end(I, Short sum) { return sum; }

inline void dot_six_bits(I& a, I& b, B first, int32_t x_first, B second, int32_t x_second) {
  a = i_dot_bytes(a, first, x_first);
  b = i_dot_bytes(b, second, x_second);
}

inline I i_dot_halves(I sum, I pairs, int32_t x) {
  const __m256i broadcast = _mm256_set1_epi32(x);
  return {dpwssd(sum.a, pairs.a, broadcast), dpwssd(sum.b, pairs.b, broadcast)};
}

// Each builds on the one before.
// clang-format off
#include "kernels/cpu/linear_unit.inl"
#include "kernels/cpu/linear_body.inl"
// clang-format on
