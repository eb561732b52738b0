#if defined(__aarch64__)
#include <arm_neon.h>

#include "kernels/cpu/dense_ops.h"
#include "kernels/cpu/packed.h"
#include "kernels/cpu/target.h"
#define QUERN_LANES_I8MM 0

namespace quern::cpu {
namespace {
#include "kernels/cpu/lanes_neon.inl"

constexpr int kDenseTiles = 6;  // x 4 registers + 4 weights + 1 broadcast = 29 of 32

// Each builds on the one before.
// clang-format off
#include "kernels/cpu/dense_pairs.inl"
#include "kernels/cpu/dense_body.inl"
// clang-format on
}  // namespace

extern const DenseOps kDenseNeon;
const DenseOps kDenseNeon = kOps;
}  // namespace quern::cpu
#endif
