#if defined(__x86_64__)
#include "kernels/cpu/avx512.h"
#include "kernels/cpu/dense_ops.h"
#include "kernels/cpu/packed.h"
#include "kernels/cpu/target.h"
#define QUERN_LANES_VNNI 0
QUERN_TARGET_BEGIN(QUERN_TARGET_AVX512)

namespace quern::cpu {
namespace {
#include "kernels/cpu/lanes_avx512.inl"

constexpr int kDenseTiles = 24;  // + 4 weights + 1 broadcast = 29 of 32

// Each builds on the one before.
// clang-format off
#include "kernels/cpu/dense_pairs.inl"
#include "kernels/cpu/dense_body.inl"
// clang-format on
}  // namespace

extern const DenseOps kDenseAvx512;
const DenseOps kDenseAvx512 = kOps;
}  // namespace quern::cpu

QUERN_TARGET_END
#endif
