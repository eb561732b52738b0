#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/cpu/elementwise_kernels.h"
#include "kernels/cpu/target.h"
QUERN_TARGET_BEGIN(QUERN_TARGET_AVX2)

namespace quern::cpu {
namespace {
// Each builds on the one before.
// clang-format off
#include "kernels/cpu/lanes_avx2.inl"
#include "kernels/cpu/lanes_math.inl"
#include "kernels/cpu/elementwise_body.inl"
// clang-format on
}  // namespace

const ElementwiseKernels kElementwiseAvx2 = kKernels;
}  // namespace quern::cpu

QUERN_TARGET_END
#endif
