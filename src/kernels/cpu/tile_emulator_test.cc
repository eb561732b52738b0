#include "kernels/cpu/tile_emulator.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <iterator>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"

namespace quern::cpu {
namespace {

TEST(TileConfig, IsValidForEveryShapeOfTheKernels) {
  for (int tokens = 1; tokens <= kTileTokens; ++tokens) {
    for (const int depth : {16, 32, 64}) {
      const TileConfig config = tile_config({.tokens = tokens, .depth = depth});
      EXPECT_TRUE(TileEmulator::valid(config)) << tokens << " " << depth;
      const auto last = std::end(config.rows) - kTileRegisters;  // the rest is unused
      EXPECT_LE(*std::max_element(std::begin(config.rows), last), 16);
      EXPECT_GE(*std::min_element(std::begin(config.rows), last), 1);
      EXPECT_LE(*std::max_element(std::begin(config.row_bytes), std::end(config.row_bytes)), 64);
    }
  }
}

TEST(TileConfig, DepthIsTheLargestThatDividesAGroup) {
  EXPECT_EQ(tile_depth(16), 16);
  EXPECT_EQ(tile_depth(32), 32);
  EXPECT_EQ(tile_depth(96), 32);
  EXPECT_EQ(tile_depth(64), 64);
  EXPECT_EQ(tile_depth(576), 64);
}

TEST(TileEmulator, RefusesWhatTheProcessorRefuses) {
  const auto valid_after = [](auto change) {
    TileConfig config = tile_config({});
    change(config);
    return TileEmulator::valid(config);
  };
  EXPECT_TRUE(valid_after([](TileConfig&) {}));
  EXPECT_FALSE(valid_after([](TileConfig& c) { c.palette = 2; }));
  EXPECT_FALSE(valid_after([](TileConfig& c) { c.start_row = 1; }));
  EXPECT_FALSE(valid_after([](TileConfig& c) { c.reserved[3] = 1; }));
  EXPECT_FALSE(valid_after([](TileConfig& c) { c.rows[2] = 17; }));
  EXPECT_FALSE(valid_after([](TileConfig& c) { c.row_bytes[7] = 65; }));
  EXPECT_FALSE(valid_after([](TileConfig& c) { c.rows[1] = 0; })) << "bytes without rows";
  EXPECT_FALSE(valid_after([](TileConfig& c) { c.row_bytes[8] = c.rows[8] = 16; })) << "8 tiles";
}

TEST(TileEmulatorDeathTest, FailsOnTilesThatAreNotConfigured) {
  TileEmulator tiles;
  EXPECT_DEATH(tiles.zero(0), "configured");
  tiles.configure(tile_config({}));
  tiles.zero(0);
  tiles.release();
  EXPECT_DEATH(tiles.zero(0), "configured");
}

TEST(TileEmulatorDeathTest, FailsOnOperandsThatDoNotFit) {
  TileConfig config = tile_config({.tokens = 16, .depth = 32});
  config.rows[kWeightTile] = 16;
  TileEmulator tiles;
  tiles.configure(config);
  tiles.dot(0, kActivationTile, kWeightTile + 1);
  EXPECT_DEATH(tiles.dot(0, kActivationTile, kWeightTile), "row_bytes");
}

constexpr size_t kTokens = 16;
constexpr size_t kRows = 16;
constexpr size_t kRowBytes = 64;
using Bytes = std::array<int8_t, kTokens * kRowBytes>;
using Sums = std::array<int32_t, kTokens * kRows>;

struct Operands {
  Bytes a;  // [tokens][64]
  Bytes b;  // [depth / 4][16][4]
  Sums c;

  explicit Operands(uint64_t seed) {
    for (size_t i = 0; i < a.size(); ++i) a[i] = static_cast<int8_t>(random_bits(seed, 1, i) & 255);
    for (size_t i = 0; i < b.size(); ++i) b[i] = static_cast<int8_t>(random_bits(seed, 2, i) & 255);
    for (size_t i = 0; i < c.size(); ++i) c[i] = static_cast<int32_t>(random_bits(seed, 3, i));
  }

  // c after one product, in 64 bits and cut to 32.
  int32_t expected(size_t token, size_t row, size_t depth) const {
    int64_t sum = c[token * kRows + row];
    for (size_t k = 0; k < depth; ++k)
      sum += int64_t{a[token * kRowBytes + k]} * b[k / 4 * kRowBytes + 4 * row + k % 4];
    return static_cast<int32_t>(static_cast<uint32_t>(static_cast<uint64_t>(sum)));
  }
};

Sums emulated(const Operands& o, const TileShape& shape) {
  Sums sums = o.c;
  TileEmulator tiles;
  tiles.configure(tile_config(shape));
  tiles.load(0, sums.data(), kRowBytes);
  tiles.load(kActivationTile, o.a.data(), kRowBytes);
  tiles.load(kWeightTile, o.b.data(), kRowBytes);
  tiles.dot(0, kActivationTile, kWeightTile);
  tiles.store(0, sums.data(), kRowBytes);
  return sums;
}

// Sums of all sizes, so that some wrap.
TEST(TileEmulator, ProductIsTheDotProductOfSignedBytes) {
  for (const int tokens : {1, 5, 16}) {
    for (const int depth : {16, 32, 64}) {
      const Operands o(static_cast<uint64_t>(tokens + depth));
      const Sums got = emulated(o, {.tokens = tokens, .depth = depth});
      for (size_t i = 0; i < got.size(); ++i) {
        const size_t token = i / kRows;
        const bool written = static_cast<int>(token) < tokens;
        ASSERT_EQ(got[i],
                  written ? o.expected(token, i % kRows, static_cast<size_t>(depth)) : o.c[i])
            << tokens << " " << depth << " " << i;
      }
    }
  }
}

TEST(TileEmulator, SumsWrapAndDoNotSaturate) {
  Operands o(1);
  o.a.fill(0);
  o.b.fill(0);
  o.a[0] = -128;
  o.b[0] = -128;  // 16384
  o.b[4] = 127;   // -16256
  o.c[0] = std::numeric_limits<int32_t>::max();
  o.c[1] = std::numeric_limits<int32_t>::min();
  const Sums sums = emulated(o, {});
  EXPECT_EQ(sums[0], std::numeric_limits<int32_t>::min() + 16383);
  EXPECT_EQ(sums[1], std::numeric_limits<int32_t>::max() - 16255);
}

TEST(TileEmulator, LoadsAndStoresAtAnyStride) {
  TileEmulator tiles;
  tiles.configure(tile_config({.tokens = 3, .depth = 32}));
  std::vector<int8_t> from(300);
  for (size_t i = 0; i < from.size(); ++i) from[i] = static_cast<int8_t>(i);
  tiles.load(kActivationTile, from.data(), 100);
  std::vector<int8_t> to(120, -1);
  tiles.store(kActivationTile, to.data(), 40);
  for (size_t i = 0; i < to.size(); ++i) {
    const size_t row = i / 40;
    const size_t column = i % 40;
    EXPECT_EQ(to[i], column < 32 ? from[row * 100 + column] : int8_t{-1}) << row << " " << column;
  }
}

}  // namespace
}  // namespace quern::cpu
