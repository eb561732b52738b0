#include "kernels/cpu/avx512.h"
#include "kernels/cpu/limit_ops.h"

#if defined(__x86_64__)
#include "kernels/cpu/target.h"
#include "kernels/cpu/tile_ops.h"

#define QUERN_REGISTER "v"

QUERN_TARGET_BEGIN(QUERN_TARGET_AMX)

namespace quern::cpu {
namespace {

#include "kernels/cpu/amx_tiles.inl"
#include "kernels/cpu/limit_avx512.inl"

inline V v_product(V sum, V a, V b) { return _mm512_dpbusd_epi32(sum, a, b); }

#include "kernels/cpu/limit_body.inl"

// Four independent sums hide the latency of a product.
constexpr int64_t kTileOperations = int64_t{4} * 2 * kTileTokens * kPanelRows * kTileColumns;

int64_t tile_products(int64_t rounds) {
  alignas(64) int32_t sums[kTileTokens * kPanelRows];
  Tiles::configure(tile_config({}));
  Tiles::zero<0>();
  Tiles::zero<1>();
  Tiles::zero<2>();
  Tiles::zero<3>();
  Tiles::zero<kActivationTile>();
  Tiles::zero<kWeightTile>();
  for (int64_t r = 0; r < rounds; ++r) {
    Tiles::dot<0, kActivationTile, kWeightTile>();
    Tiles::dot<1, kActivationTile, kWeightTile>();
    Tiles::dot<2, kActivationTile, kWeightTile>();
    Tiles::dot<3, kActivationTile, kWeightTile>();
  }
  Tiles::store<3>(sums, kTileRowBytes);
  Tiles::release();
  return sums[0];
}

constexpr LimitOps on_tiles() {
  LimitOps ops = kOps;
  ops.int8_products = tile_products;
  ops.int8_operations = kTileOperations;
  return ops;
}

}  // namespace

extern const LimitOps kLimitsAmx;
const LimitOps kLimitsAmx = on_tiles();

}  // namespace quern::cpu

QUERN_TARGET_END
#endif
