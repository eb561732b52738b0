#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/cpu/limit_ops.h"
#include "kernels/cpu/target.h"

#define QUERN_REGISTER "x"

QUERN_TARGET_BEGIN(QUERN_TARGET_AVX2)

namespace quern::cpu {
namespace {

using V = __m256i;
using F = __m256;

constexpr int kSums = 10;
constexpr int64_t kOperations = 64;

inline V v_zero() { return _mm256_setzero_si256(); }

inline V v_load(const std::byte* at) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
}

inline V v_or(V a, V b) { return _mm256_or_si256(a, b); }

inline int64_t v_sum(V a) {
  return _mm256_extract_epi64(a, 0) | _mm256_extract_epi64(a, 1) | _mm256_extract_epi64(a, 2) |
         _mm256_extract_epi64(a, 3);
}

// Sums of 16 bits, as products of nibbles have them for 32 columns: nothing is faster.
inline V v_product(V sum, V a, V b) { return _mm256_add_epi16(sum, _mm256_maddubs_epi16(a, b)); }

inline F f_set(float x) { return _mm256_set1_ps(x); }

inline F f_fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }

inline float f_first(F a) { return _mm256_cvtss_f32(a); }

#include "kernels/cpu/limit_body.inl"

}  // namespace

extern const LimitOps kLimitsAvx2;
const LimitOps kLimitsAvx2 = kOps;

}  // namespace quern::cpu

QUERN_TARGET_END
#endif
