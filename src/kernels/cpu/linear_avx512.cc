#if defined(__x86_64__)
#include <bit>
#include <cstring>

#include "kernels/cpu/avx512.h"
#include "kernels/cpu/linear_ops.h"
#include "kernels/cpu/packed.h"
#include "kernels/cpu/target.h"
#include "kernels/rounding.h"

QUERN_TARGET_BEGIN(QUERN_TARGET_AVX512)

namespace quern::cpu {
namespace {

#include "kernels/cpu/linear_avx512.inl"

// Sums of pairs of products in int16: 8 nibble products of 2 * 15 * 127 stay below 2^15.
using Short = I;

constexpr int kChains = 2;
constexpr int kGroupedColumns = 7;  // eight rows need more pointers than there are registers

inline Short short_begin(I) { return i_zero(); }

inline Short short_dot_nibbles(Short sum, B codes, int32_t x) {
  return _mm512_add_epi16(sum, _mm512_maddubs_epi16(codes, _mm512_set1_epi32(x)));
}

inline I short_end(I sum, Short s) {
  return _mm512_add_epi32(sum, _mm512_madd_epi16(s, _mm512_set1_epi16(1)));
}

constexpr int kByteBase = 0;

// Codes up to 255 would overflow int16 in one product: the nibbles go apart.
inline I i_dot_bytes(I sum, B codes, int32_t x) {
  const I broadcast = _mm512_set1_epi32(x);
  const I low = _mm512_maddubs_epi16(b_low_nibbles(codes), broadcast);
  const I high = _mm512_maddubs_epi16(b_high_nibbles(codes), broadcast);
  sum = _mm512_add_epi32(sum, _mm512_madd_epi16(low, _mm512_set1_epi16(1)));
  return _mm512_add_epi32(sum, _mm512_madd_epi16(high, _mm512_set1_epi16(16)));
}

// Codes below 64: two pairs of products are at most 4 * 63 * 127 < 2^15.
inline void dot_six_bits(I& sum, I&, B first, int32_t x_first, B second, int32_t x_second) {
  const Short pairs = _mm512_add_epi16(_mm512_maddubs_epi16(first, _mm512_set1_epi32(x_first)),
                                       _mm512_maddubs_epi16(second, _mm512_set1_epi32(x_second)));
  sum = _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
}

inline I i_dot_halves(I sum, I pairs, int32_t x) {
  return _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi32(x)));
}

// Each builds on the one before.
// clang-format off
#include "kernels/cpu/linear_unit.inl"
#include "kernels/cpu/linear_body.inl"
// clang-format on

}  // namespace

extern const LinearOps kLinearAvx512;
const LinearOps kLinearAvx512 = kBaseOps;

}  // namespace quern::cpu

QUERN_TARGET_END
#endif
