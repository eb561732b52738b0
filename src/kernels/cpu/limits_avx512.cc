#if defined(__x86_64__)
#include "kernels/cpu/avx512.h"
#include "kernels/cpu/limit_ops.h"
#include "kernels/cpu/target.h"

#define QUERN_REGISTER "v"

QUERN_TARGET_BEGIN(QUERN_TARGET_AVX512)

namespace quern::cpu {
namespace {

#include "kernels/cpu/limit_avx512.inl"

namespace plain {

// Without VNNI: pairs in 16 bits, widened at once.
inline V v_product(V sum, V a, V b) {
  return _mm512_add_epi32(sum, _mm512_madd_epi16(_mm512_maddubs_epi16(a, b), _mm512_set1_epi16(1)));
}

#include "kernels/cpu/limit_body.inl"

}  // namespace plain
}  // namespace
}  // namespace quern::cpu

QUERN_TARGET_END
QUERN_TARGET_BEGIN(QUERN_TARGET_AVX512_VNNI)

namespace quern::cpu {
namespace {
namespace vnni {

inline V v_product(V sum, V a, V b) { return _mm512_dpbusd_epi32(sum, a, b); }

#include "kernels/cpu/limit_body.inl"  // NOLINT(readability-duplicate-include)

}  // namespace vnni
}  // namespace

extern const LimitOps kLimitsAvx512, kLimitsAvx512Vnni;
const LimitOps kLimitsAvx512 = plain::kOps;
const LimitOps kLimitsAvx512Vnni = vnni::kOps;

}  // namespace quern::cpu

QUERN_TARGET_END
#endif
