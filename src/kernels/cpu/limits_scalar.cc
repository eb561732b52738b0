#include "kernels/cpu/limit_ops.h"
#include "kernels/cpu/target.h"

#if defined(__x86_64__)
#define QUERN_REGISTER "x"
#else
#define QUERN_REGISTER "w"
#endif

namespace quern::cpu {
namespace {

// The compiler's own vectors: the baseline of every x86-64 and ARM64 has 128 bits.
using V = int32_t __attribute__((vector_size(16)));
using F = float __attribute__((vector_size(16)));

constexpr int kSums = 8;
constexpr int64_t kOperations = 8;  // four products in 32 bits, and their sums

inline V v_zero() { return V{0, 0, 0, 0}; }

inline V v_load(const std::byte* at) {
  V v;
  __builtin_memcpy(&v, at, sizeof v);
  return v;
}

inline V v_or(V a, V b) { return a | b; }

inline int64_t v_sum(V a) { return a[0] | a[1] | a[2] | a[3]; }

inline V v_product(V sum, V a, V b) { return sum + a * b; }

inline F f_set(float x) { return F{x, x, x, x}; }

inline F f_fma(F a, F b, F c) { return a * b + c; }

inline float f_first(F a) { return a[0]; }

#include "kernels/cpu/limit_body.inl"

}  // namespace

extern const LimitOps kLimitsScalar;
const LimitOps kLimitsScalar = kOps;

}  // namespace quern::cpu
