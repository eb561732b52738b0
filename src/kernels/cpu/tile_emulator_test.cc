#include "kernels/cpu/tile_emulator.h"

#include <array>
#include <cstdint>
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
      for (int t = 0; t < kTileRegisters; ++t) {
        EXPECT_GE(config.rows[t], 1);
        EXPECT_LE(config.rows[t], 16);
        EXPECT_LE(config.row_bytes[t], 64);
      }
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
  const TileConfig good = tile_config({});
  EXPECT_TRUE(TileEmulator::valid(good));
  TileConfig config = good;
  config.palette = 2;
  EXPECT_FALSE(TileEmulator::valid(config));
  config = good;
  config.start_row = 1;
  EXPECT_FALSE(TileEmulator::valid(config));
  config = good;
  config.reserved[3] = 1;
  EXPECT_FALSE(TileEmulator::valid(config));
  config = good;
  config.rows[2] = 17;
  EXPECT_FALSE(TileEmulator::valid(config));
  config = good;
  config.row_bytes[7] = 65;
  EXPECT_FALSE(TileEmulator::valid(config));
  config = good;
  config.rows[1] = 0;  // without its bytes
  EXPECT_FALSE(TileEmulator::valid(config));
  config = good;
  config.rows[8] = 1;  // palette 1 has eight tiles
  config.row_bytes[8] = 64;
  EXPECT_FALSE(TileEmulator::valid(config));
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

struct Operands {
  std::array<int8_t, kTileBytes> a;  // [tokens][64]
  std::array<int8_t, kTileBytes> b;  // [depth / 4][16][4]
  std::array<int32_t, kTileTokens * kPanelRows> c;

  explicit Operands(uint64_t seed) {
    for (size_t i = 0; i < a.size(); ++i) a[i] = static_cast<int8_t>(random_bits(seed, 1, i) & 255);
    for (size_t i = 0; i < b.size(); ++i) b[i] = static_cast<int8_t>(random_bits(seed, 2, i) & 255);
    for (size_t i = 0; i < c.size(); ++i) c[i] = static_cast<int32_t>(random_bits(seed, 3, i));
  }

  // c after one product, in 64 bits and cut to 32.
  int32_t expected(size_t token, size_t row, size_t depth) const {
    int64_t sum = c[token * kPanelRows + row];
    for (size_t k = 0; k < depth; ++k)
      sum += int64_t{a[token * 64 + k]} * b[k / 4 * 64 + 4 * row + k % 4];
    return static_cast<int32_t>(static_cast<uint32_t>(static_cast<uint64_t>(sum)));
  }
};

// Sums of all sizes, so that some wrap.
TEST(TileEmulator, ProductIsTheDotProductOfSignedBytes) {
  for (const int tokens : {1, 5, 16}) {
    for (const int depth : {16, 32, 64}) {
      const Operands o(static_cast<uint64_t>(tokens + depth));
      std::array<int32_t, kTileTokens* kPanelRows> got = o.c;
      TileEmulator tiles;
      tiles.configure(tile_config({.tokens = tokens, .depth = depth}));
      tiles.load(0, got.data(), 64);
      tiles.load(kActivationTile, o.a.data(), 64);
      tiles.load(kWeightTile, o.b.data(), 64);
      tiles.dot(0, kActivationTile, kWeightTile);
      tiles.store(0, got.data(), 64);
      for (size_t t = 0; t < kTileTokens; ++t) {
        for (size_t r = 0; r < kPanelRows; ++r) {
          const size_t at = t * kPanelRows + r;
          const bool written = static_cast<int>(t) < tokens;
          ASSERT_EQ(got[at], written ? o.expected(t, r, static_cast<size_t>(depth)) : o.c[at]);
        }
      }
    }
  }
}

TEST(TileEmulator, SumsWrapAndDoNotSaturate) {
  TileEmulator tiles;
  tiles.configure(tile_config({.tokens = 1, .depth = 16}));
  std::array<int8_t, kTileBytes> a{};
  std::array<int8_t, kTileBytes> b{};
  std::array<int32_t, kPanelRows> c{};
  a[0] = -128;
  b[0] = -128;  // 16384
  b[4] = 127;   // -16256
  c[0] = std::numeric_limits<int32_t>::max();
  c[1] = std::numeric_limits<int32_t>::min();
  tiles.load(0, c.data(), 64);
  tiles.load(kActivationTile, a.data(), 64);
  tiles.load(kWeightTile, b.data(), 64);
  tiles.dot(0, kActivationTile, kWeightTile);
  tiles.store(0, c.data(), 64);
  EXPECT_EQ(c[0], std::numeric_limits<int32_t>::min() + 16383);
  EXPECT_EQ(c[1], std::numeric_limits<int32_t>::max() - 16255);
}

TEST(TileEmulator, LoadsAndStoresAtAnyStride) {
  TileEmulator tiles;
  tiles.configure(tile_config({.tokens = 3, .depth = 32}));
  std::vector<int8_t> from(3 * 100);
  for (size_t i = 0; i < from.size(); ++i) from[i] = static_cast<int8_t>(i);
  tiles.load(kActivationTile, from.data(), 100);
  std::vector<int8_t> to(3 * 40, -1);
  tiles.store(kActivationTile, to.data(), 40);
  for (size_t row = 0; row < 3; ++row) {
    for (size_t i = 0; i < 40; ++i) {
      EXPECT_EQ(to[row * 40 + i], i < 32 ? from[row * 100 + i] : int8_t{-1}) << row << " " << i;
    }
  }
}

}  // namespace
}  // namespace quern::cpu
