#include "tensor/formats/float8.h"

#include <cmath>
#include <cstring>

#include <gtest/gtest.h>

#include "base/random.h"

namespace quern {
namespace {

// By the definition of the format, not by the table.
double defined(uint8_t bits) {
  const int exponent = bits >> 3 & 15;
  const double significand = (exponent == 0 ? 0.0 : 1.0) + (bits & 7) / 8.0;
  const double value = std::ldexp(significand, std::max(exponent, 1) - 7);
  return bits >= 128 ? -value : value;
}

TEST(E4M3, IsWhatTheFormatDefines) {
  for (int i = 0; i < 256; ++i) {
    const auto bits = static_cast<uint8_t>(i);
    if ((i & 0x7f) == 0x7f) {
      EXPECT_TRUE(std::isnan(e4m3_to_f32(bits)));
    } else {
      EXPECT_EQ(static_cast<double>(e4m3_to_f32(bits)), defined(bits)) << i;
    }
  }
  EXPECT_EQ(e4m3_to_f32(0x7e), 448.0f);
  EXPECT_EQ(e4m3_to_f32(0x38), 1.0f);
  EXPECT_EQ(e4m3_to_f32(0x01), 0x1p-9f);
  EXPECT_TRUE(std::signbit(e4m3_to_f32(0x80)));
}

// Random numbers, none NaN, and scales of blocks.
struct RandomFloat8 {
  RandomFloat8(
      int64_t rows, int64_t columns, int64_t block_rows, int64_t block_columns, uint64_t seed)
      : codes(static_cast<size_t>(rows * columns)) {
    for (size_t i = 0; i < codes.size(); ++i) {
      uint8_t code = 0x7f;
      for (uint64_t dice = 0; (code & 0x7f) == 0x7f; ++dice)
        code = static_cast<uint8_t>(random_bits(seed, dice, i) >> 20);
      codes[i] = std::byte{code};
    }
    const int64_t down = (rows + block_rows - 1) / block_rows;
    const int64_t across = (columns + block_columns - 1) / block_columns;
    Float8Parts parts{.name = "w",
                      .codes = codes,
                      .shape = {rows, columns},
                      .block_rows = block_rows,
                      .block_columns = block_columns};
    for (int64_t i = 0; i < down * across; ++i) {
      parts.scales.push_back(
          static_cast<float>(0.001 + random_uniform(seed, 9, static_cast<uint64_t>(i))));
    }
    weight = make_float8_weight(std::move(parts)).value();
  }

  std::vector<std::byte> codes;
  Float8Weight weight;
};

TEST(Float8Weight, WidensEveryBlockByItsOwnScaleCutOffBlocksToo) {
  const RandomFloat8 random(70, 100, 32, 64, 1);
  const Weight weight(random.weight);
  EXPECT_EQ(weight_rows(weight), 70);
  EXPECT_EQ(weight_columns(weight), 100);
  const FloatMatrix wide = widen(weight);
  for (int64_t row = 0; row < 70; ++row) {
    for (int64_t c = 0; c < 100; ++c) {
      const auto code = std::to_integer<uint8_t>(random.codes[static_cast<size_t>(row * 100 + c)]);
      const float scale = random.weight.scales[static_cast<size_t>(row / 32 * 2 + c / 64)];
      ASSERT_EQ(wide.row(row)[c], scale * static_cast<float>(defined(code))) << row << " " << c;
    }
  }
}

TEST(Float8Weight, RefusesWhatDoesNotFit) {
  std::vector<std::byte> codes(64);
  const auto refusal = [&](std::vector<float> scales) {
    Float8Parts parts{
        .name = "w", .codes = codes, .shape = {4, 16}, .block_rows = 2, .block_columns = 16};
    parts.scales = std::move(scales);
    const auto made = make_float8_weight(std::move(parts));
    return made ? "" : made.error().message;
  };
  EXPECT_EQ(refusal({1, 1}), "");
  EXPECT_EQ(refusal({1, 1, 1}), "w: 3 scales; expected 2 for blocks of 2 x 16");
  EXPECT_EQ(refusal({1, NAN}), "w: scale 1 is nan; scales must be finite");
  codes[33] = std::byte{0x7f};
  EXPECT_EQ(refusal({1, 1}), "w: row 2, column 1 is NaN; weights must be finite");
}

TEST(Float8GroupSize, IsTheLargestThatLiesInOneBlock) {
  EXPECT_EQ(float8_group_size(4096, 128), 128);
  EXPECT_EQ(float8_group_size(576, 576), 64);
  EXPECT_EQ(float8_group_size(96, 64), 32);
  EXPECT_EQ(float8_group_size(4096, 96), 32);
  EXPECT_EQ(float8_group_size(80, 80), std::nullopt);
  EXPECT_EQ(float8_group_size(128, 16), std::nullopt);
}

// Of a group's largest number m at least m / 8 is exact; what is smaller is off by half a step,
// which is m / 128 at most.
TEST(IntegersOf, AreExactForFourBinadesAndNearBelow) {
  ThreadPool pool(2);
  for (const uint64_t seed : {1u, 2u, 3u}) {
    for (const int group : {32, 64, 128}) {
      const RandomFloat8 random(33, 256, 16, 128, seed);
      const Weight integers(integers_of(random.weight, group, pool));
      const FloatMatrix meant = widen(Weight(random.weight));
      const FloatMatrix found = widen(integers);
      for (int64_t row = 0; row < 33; ++row) {
        for (int64_t begin = 0; begin < 256; begin += group) {
          float most = 0;
          for (int64_t c = begin; c < begin + group; ++c)
            most = std::max(most, std::fabs(meant.row(row)[c]));
          for (int64_t c = begin; c < begin + group; ++c) {
            const float w = meant.row(row)[c];
            const float allowed = std::fabs(w) >= most / 8 ? 0 : most / 127.9f;
            ASSERT_NEAR(found.row(row)[c], w, allowed) << "group " << group;
          }
        }
      }
    }
  }
}

TEST(IntegersOf, KeepsAGroupOfZerosZero) {
  ThreadPool pool(1);
  const std::vector<std::byte> codes(64, std::byte{0x80});  // -0
  Float8Parts parts{
      .name = "w", .codes = codes, .shape = {1, 64}, .block_rows = 1, .block_columns = 64};
  parts.scales = {3.0f};
  const Float8Weight weight = make_float8_weight(std::move(parts)).value();
  const FloatMatrix wide = widen(Weight(integers_of(weight, 32, pool)));
  for (int64_t c = 0; c < 64; ++c) EXPECT_EQ(wide.row(0)[c], 0.0f);
}

}  // namespace
}  // namespace quern
