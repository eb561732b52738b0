#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/cpu/limit_ops.h"
#include "kernels/cpu/target.h"

#define QUERN_REGISTER "x"

QUERN_TARGET_BEGIN(QUERN_TARGET_AVX2)

namespace quern::cpu {
namespace {

#include "kernels/cpu/limit_avx2.inl"

namespace plain {

// Sums of 16 bits, as products of nibbles have them for 32 columns: nothing is faster.
inline V v_product(V sum, V a, V b) { return _mm256_add_epi16(sum, _mm256_maddubs_epi16(a, b)); }

#include "kernels/cpu/limit_body.inl"

}  // namespace plain
}  // namespace
}  // namespace quern::cpu

QUERN_TARGET_END
QUERN_TARGET_BEGIN(QUERN_TARGET_AVX_VNNI)

namespace quern::cpu {
namespace {
namespace vnni {

inline V v_product(V sum, V a, V b) { return _mm256_dpbusd_avx_epi32(sum, a, b); }

#include "kernels/cpu/limit_body.inl"  // NOLINT(readability-duplicate-include)

}  // namespace vnni
}  // namespace

extern const LimitOps kLimitsAvx2, kLimitsAvxVnni;
const LimitOps kLimitsAvx2 = plain::kOps;
const LimitOps kLimitsAvxVnni = vnni::kOps;

}  // namespace quern::cpu

QUERN_TARGET_END
#endif
