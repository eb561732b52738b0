#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/target.h"
#define QUERN_LANES_VNNI 1
QUERN_TARGET_BEGIN(QUERN_TARGET_AVX_VNNI)

namespace quern::cpu {
namespace {

inline __m256i dpbusd(__m256i acc, __m256i u, __m256i s) {
  return _mm256_dpbusd_avx_epi32(acc, u, s);
}

// Each builds on the one before.
// clang-format off
#include "kernels/cpu/lanes_avx2.inl"
#include "kernels/cpu/lanes_math.inl"
#include "kernels/cpu/attention_body.inl"
// clang-format on
}  // namespace

const AttentionKernels kAttentionAvxVnni = kKernels;
}  // namespace quern::cpu

QUERN_TARGET_END
#endif
