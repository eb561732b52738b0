#if defined(__x86_64__)
#include <bit>
#include <cstring>

#include <immintrin.h>

#include "kernels/cpu/linear_ops.h"
#include "kernels/cpu/packed.h"
#include "kernels/cpu/target.h"
#include "kernels/rounding.h"

QUERN_TARGET_BEGIN(QUERN_TARGET_AVX2)

namespace quern::cpu {
namespace {

#include "kernels/cpu/linear_avx2.inl"

// Sums of pairs of products in int16: 8 nibble products of 2 * 15 * 127 stay below 2^15.
using Short = I;

constexpr int kChains = 1;

inline I multiply_pairs(B codes, __m256i x) {
  return {_mm256_maddubs_epi16(codes.a, x), _mm256_maddubs_epi16(codes.b, x)};
}

inline Short add_shorts(Short x, Short y) {
  return {in_order(_mm256_add_epi16(x.a, y.a)), in_order(_mm256_add_epi16(x.b, y.b))};
}

inline I add_pairs(I sum, I pairs, __m256i weights) {
  return {in_order(_mm256_add_epi32(sum.a, _mm256_madd_epi16(pairs.a, weights))),
          in_order(_mm256_add_epi32(sum.b, _mm256_madd_epi16(pairs.b, weights)))};
}

inline Short short_begin(I) { return i_zero(); }

inline Short short_dot_nibbles(Short sum, B codes, int32_t x) {
  return add_shorts(sum, multiply_pairs(codes, _mm256_set1_epi32(x)));
}

inline I short_end(I sum, Short s) { return add_pairs(sum, s, _mm256_set1_epi16(1)); }

// A code c < 256 as |c - 128|, its sign given to x: a pair of products is at most 2 * 128 * 127,
// which int16 holds.
constexpr int kByteBase = 128;

inline I i_dot_bytes(I sum, B codes, int32_t x) {
  const I weights = i_xor(codes, i_set(static_cast<int32_t>(0x80808080)));
  const __m256i broadcast = _mm256_set1_epi32(x);
  const I pairs = {
      _mm256_maddubs_epi16(_mm256_abs_epi8(weights.a), _mm256_sign_epi8(broadcast, weights.a)),
      _mm256_maddubs_epi16(_mm256_abs_epi8(weights.b), _mm256_sign_epi8(broadcast, weights.b))};
  return add_pairs(sum, pairs, _mm256_set1_epi16(1));
}

// Codes below 64: two pairs of products are at most 4 * 63 * 127 < 2^15.
inline void dot_six_bits(I& sum, I&, B first, int32_t x_first, B second, int32_t x_second) {
  const Short pairs = add_shorts(multiply_pairs(first, _mm256_set1_epi32(x_first)),
                                 multiply_pairs(second, _mm256_set1_epi32(x_second)));
  sum = add_pairs(sum, pairs, _mm256_set1_epi16(1));
}

inline I i_dot_halves(I sum, I pairs, int32_t x) {
  return add_pairs(sum, pairs, _mm256_set1_epi32(x));
}

// Each builds on the one before.
// clang-format off
#include "kernels/cpu/linear_unit.inl"
#include "kernels/cpu/linear_body.inl"
// clang-format on

}  // namespace

extern const LinearOps kLinearAvx2;
const LinearOps kLinearAvx2 = kBaseOps;

}  // namespace quern::cpu

QUERN_TARGET_END
#endif
