#if defined(__aarch64__)
#include <arm_neon.h>

#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/target.h"
#define QUERN_LANES_I8MM 0

namespace quern::cpu {
namespace {
// Each builds on the one before.
// clang-format off
#include "kernels/cpu/lanes_neon.inl"
#include "kernels/cpu/lanes_math.inl"
#include "kernels/cpu/attention_body.inl"
// clang-format on
}  // namespace

const AttentionKernels kAttentionNeon = kKernels;
}  // namespace quern::cpu
#endif
