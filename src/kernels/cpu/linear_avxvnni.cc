#if defined(__x86_64__)
#include <bit>
#include <cstring>

#include <immintrin.h>

#include "kernels/cpu/linear_ops.h"
#include "kernels/cpu/packed.h"
#include "kernels/cpu/target.h"
#include "kernels/rounding.h"

QUERN_TARGET_BEGIN(QUERN_TARGET_AVX_VNNI)

namespace quern::cpu {
namespace {

inline __m256i dpbusd(__m256i sum, __m256i a, __m256i b) {
  return _mm256_dpbusd_avx_epi32(sum, a, b);
}

inline __m256i dpwssd(__m256i sum, __m256i a, __m256i b) {
  return _mm256_dpwssd_avx_epi32(sum, a, b);
}

#include "kernels/cpu/linear_avxvnni.inl"

}  // namespace

extern const LinearOps kLinearAvxVnni;
const LinearOps kLinearAvxVnni = kBaseOps;

}  // namespace quern::cpu

QUERN_TARGET_END
#endif
