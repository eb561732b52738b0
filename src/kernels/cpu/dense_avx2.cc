#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/cpu/dense_ops.h"
#include "kernels/cpu/packed.h"
#include "kernels/cpu/target.h"
#define QUERN_LANES_VNNI 0
QUERN_TARGET_BEGIN(QUERN_TARGET_AVX2)

namespace quern::cpu {
namespace {
#include "kernels/cpu/lanes_avx2.inl"

constexpr int kDenseTiles = 6;  // x 2 registers + 2 weights + 1 broadcast = 15 of 16

// Each builds on the one before.
// clang-format off
#include "kernels/cpu/dense_pairs.inl"
#include "kernels/cpu/dense_body.inl"
// clang-format on
}  // namespace

extern const DenseOps kDenseAvx2;
const DenseOps kDenseAvx2 = kOps;
}  // namespace quern::cpu

QUERN_TARGET_END
#endif
