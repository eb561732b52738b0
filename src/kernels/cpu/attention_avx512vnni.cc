#if defined(__x86_64__)
#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/avx512.h"
#include "kernels/cpu/target.h"
#define QUERN_LANES_VNNI 1
QUERN_TARGET_BEGIN(QUERN_TARGET_AVX512_VNNI)

namespace quern::cpu {
namespace {
// Each builds on the one before.
// clang-format off
#include "kernels/cpu/lanes_avx512.inl"
#include "kernels/cpu/lanes_math.inl"
#include "kernels/cpu/attention_body.inl"
// clang-format on
}  // namespace

const AttentionKernels kAttentionAvx512Vnni = kKernels;
}  // namespace quern::cpu

QUERN_TARGET_END
#endif
