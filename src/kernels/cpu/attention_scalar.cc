#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/float16.h"
#include "kernels/cpu/attention_kernels.h"

namespace quern::cpu {
namespace {
// Each builds on the one before.
// clang-format off
#include "kernels/cpu/lanes_scalar.inl"
#include "kernels/cpu/lanes_math.inl"
#include "kernels/cpu/attention_body.inl"
// clang-format on
}  // namespace

const AttentionKernels kAttentionScalar = kKernels;
}  // namespace quern::cpu
