#include "kernels/cpu/avx512.h"
#include "kernels/cpu/tile_ops.h"

#if defined(__x86_64__)
#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/cpu/target.h"

QUERN_TARGET_BEGIN(QUERN_TARGET_AMX)

namespace quern::cpu {
namespace {

#include "kernels/cpu/linear_avx512.inl"

inline I i_dot_halves(I sum, I pairs, int32_t x) {
  return _mm512_dpwssd_epi32(sum, pairs, _mm512_set1_epi32(x));
}

#include "kernels/cpu/amx_tiles.inl"
#include "kernels/cpu/linear_tiles.inl"

}  // namespace

extern const TileOps kTileAmx;
const TileOps kTileAmx = kTileKernels;

}  // namespace quern::cpu

QUERN_TARGET_END
#endif
