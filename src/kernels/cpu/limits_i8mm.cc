#if defined(__aarch64__)
#include <arm_neon.h>

#include "kernels/cpu/limit_ops.h"
#include "kernels/cpu/target.h"

#define QUERN_REGISTER "w"

namespace quern::cpu {
namespace {

#include "kernels/cpu/limit_neon.inl"

constexpr int64_t kOperations = 64;

inline V v_product(V sum, V a, V b) {
  return vmmlaq_s32(sum, vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b));
}

#include "kernels/cpu/limit_body.inl"

}  // namespace

extern const LimitOps kLimitsI8mm;
const LimitOps kLimitsI8mm = kOps;

}  // namespace quern::cpu
#endif
