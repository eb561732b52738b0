#if defined(__x86_64__)
#include "kernels/cpu/avx512.h"
#include "kernels/cpu/dense_ops.h"
#include "kernels/cpu/packed.h"
#include "kernels/cpu/target.h"
#define QUERN_LANES_VNNI 0
QUERN_TARGET_BEGIN(QUERN_TARGET_AVX512_BF16)

namespace quern::cpu {
namespace {
#include "kernels/cpu/lanes_avx512.inl"

constexpr int kDenseTiles = 24;  // + 4 weights + 1 broadcast = 29 of 32

constexpr bool kPairs = true;

template <int P, int M>
inline void multiply_pairs(F (&y)[P][M], const DenseTile& t) {
  const std::byte* weights = t.weights;
  const auto* x = reinterpret_cast<const int32_t*>(t.x);
  for (int64_t k = 0; k < t.depth; k += 2, weights += 4 * kPanelRows, x += M) {
    __m512bh w[P];
    QUERN_UNROLL for (int p = 0; p < P; ++p) w[p] = (__m512bh)load_i(weights + p * t.panel_bytes);
    QUERN_UNROLL for (int m = 0; m < M; ++m) {
      const auto broadcast = (__m512bh)set1_i(x[m]);
      QUERN_UNROLL for (int p = 0; p < P; ++p) y[p][m] = _mm512_dpbf16_ps(y[p][m], w[p], broadcast);
    }
  }
}

#include "kernels/cpu/dense_body.inl"
}  // namespace

extern const DenseOps kDenseAvx512Bf16;
const DenseOps kDenseAvx512Bf16 = kOps;
}  // namespace quern::cpu

QUERN_TARGET_END
#endif
