#if defined(__x86_64__)
#include <bit>
#include <cstring>
#include <utility>

#include "kernels/cpu/avx512.h"
#include "kernels/cpu/linear_ops.h"
#include "kernels/cpu/packed.h"
#include "kernels/cpu/target.h"
#include "kernels/rounding.h"

QUERN_TARGET_BEGIN(QUERN_TARGET_AVX512_VNNI)

namespace quern::cpu {
namespace {

#include "kernels/cpu/linear_avx512.inl"

using Short = I;

constexpr int kChains = 4;
constexpr int kGroupedColumns = 7;  // eight rows need more pointers than there are registers

constexpr int kByteBase = 0;

// GCC 12 spills the sums of this instruction when it is written as an intrinsic.
inline I i_dot_bytes(I sum, B codes, int32_t x) {
#ifdef __clang__
  return _mm512_dpbusd_epi32(sum, codes, _mm512_set1_epi32(x));
#else
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(_mm512_set1_epi32(x)));
  return sum;
#endif
}

inline void dot_six_bits(I& a, I& b, B first, int32_t x_first, B second, int32_t x_second) {
  a = i_dot_bytes(a, first, x_first);
  b = i_dot_bytes(b, second, x_second);
}

inline I i_dot_halves(I sum, I pairs, int32_t x) {
  return _mm512_dpwssd_epi32(sum, pairs, _mm512_set1_epi32(x));
}

inline Short short_begin(I sum) { return sum; }

inline Short short_dot_nibbles(Short sum, B codes, int32_t x) { return i_dot_bytes(sum, codes, x); }

inline I short_end(I, Short sum) { return sum; }

// Each builds on the one before.
// clang-format off
#include "kernels/cpu/linear_unit.inl"
#include "kernels/cpu/linear_body.inl"
#include "kernels/cpu/strip_vnni.inl"
// clang-format on

// Up to 16 rows: their sums are half of the registers, and every code is unpacked once for them.
template <WeightFormat kFormat, Offsets kOffsets, int kGroups, int kUnit, int... kRows>
constexpr void add_together(LinearOps& ops, std::integer_sequence<int, kRows...> /*rows*/) {
  constexpr int kPlace = static_cast<int>(kFormat) - static_cast<int>(WeightFormat::kInt8);
  auto& to = ops.together[kPlace][static_cast<int>(kOffsets)][kGroups];
  ((to[kRows] = grouped_tile<kFormat, kOffsets, kUnit, kMinTogether + kRows, true>), ...);
}

template <WeightFormat kFormat, Offsets kOffsets>
constexpr void add_together(LinearOps& ops) {
  constexpr std::make_integer_sequence<int, kMaxTogether - kMinTogether + 1> kRows;
  // Steps of 64 columns were measured to be faster for the shortest codes alone.
  constexpr int kWide = kFormat == WeightFormat::kInt4 ? 64 : 32;
  add_together<kFormat, kOffsets, 0, 16>(ops, kRows);
  add_together<kFormat, kOffsets, 1, 32>(ops, kRows);
  add_together<kFormat, kOffsets, 2, kWide>(ops, kRows);
}

template <WeightFormat kFormat>
constexpr void add_together(LinearOps& ops) {
  add_together<kFormat, Offsets::kZeros>(ops);
  add_together<kFormat, Offsets::kMinima>(ops);
  add_together<kFormat, Offsets::kOneZero>(ops);
}

constexpr LinearOps all_ops() {
  LinearOps ops = kBaseOps;
  add_together<WeightFormat::kInt8>(ops);
  add_together<WeightFormat::kInt4>(ops);
  add_together<WeightFormat::kInt6>(ops);
  ops.goes_together = true;
  ops.unpack = unpack_panel;
  add_strip_kernels(ops);
  return ops;
}

constexpr LinearOps kOps = all_ops();

}  // namespace

extern const LinearOps kLinearAvx512Vnni;
const LinearOps kLinearAvx512Vnni = kOps;

}  // namespace quern::cpu

QUERN_TARGET_END
#endif
