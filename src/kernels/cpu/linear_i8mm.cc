#if defined(__aarch64__)
#include <bit>
#include <cstring>

#include <arm_neon.h>

#include "kernels/cpu/linear_ops.h"
#include "kernels/cpu/packed.h"
#include "kernels/cpu/target.h"
#include "kernels/rounding.h"

namespace quern::cpu {
namespace {

// Each builds on the one before.
// clang-format off
#include "kernels/cpu/linear_neon.inl"
#include "kernels/cpu/linear_unit_i8mm.inl"
#include "kernels/cpu/linear_body.inl"
// clang-format on

}  // namespace

extern const LinearOps kLinearI8mm;
const LinearOps kLinearI8mm = kBaseOps;

}  // namespace quern::cpu
#endif
