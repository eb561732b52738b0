#include <bit>
#include <cmath>
#include <cstring>

#include "base/float16.h"
#include "kernels/cpu/linear_ops.h"
#include "kernels/cpu/packed.h"
#include "kernels/cpu/target.h"
#include "kernels/rounding.h"

namespace quern::cpu {
namespace {

#include "kernels/cpu/linear_scalar.inl"

using Short = I;

constexpr int kChains = 1;
constexpr int kGroupedColumns = 4;

inline Short short_begin(const I& sum) { return sum; }

inline Short short_dot_nibbles(const Short& sum, const B& codes, int32_t x) {
  return i_dot_bytes(sum, codes, x);
}

inline I short_end(const I&, const Short& sum) { return sum; }

// Each builds on the one before.
// clang-format off
#include "kernels/cpu/linear_unit.inl"
#include "kernels/cpu/linear_body.inl"
// clang-format on

}  // namespace

extern const LinearOps kLinearScalar;
const LinearOps kLinearScalar = kBaseOps;

}  // namespace quern::cpu
