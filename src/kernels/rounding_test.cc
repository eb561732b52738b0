#include "kernels/rounding.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

namespace quern {
namespace {

TEST(RoundScales, KeepsHalfPrecisionNumbersAsTheyAre) {
  const std::vector<float> scales = {0.0f, 1.0f, -0.25f, 65504.0f, 0x1p-24f, 0x1.8p-14f};
  const RoundedScales rounded = round_scales(scales);
  EXPECT_EQ(rounded.exponent, 0);
  EXPECT_EQ(rounded.largest_error, 0);
  for (size_t i = 0; i < scales.size(); ++i) EXPECT_EQ(rounded.value(i), scales[i]);
  EXPECT_EQ(rounding_note(rounded.largest_error), "");
}

TEST(RoundScales, RoundsToElevenBitsAndSaysSo) {
  const float scale = 1.0f + 0x1p-11f + 0x1p-13f;
  const RoundedScales rounded = round_scales(std::vector<float>{scale});
  EXPECT_EQ(rounded.value(0), 1.0f + 0x1p-10f);
  EXPECT_GT(rounded.largest_error, 0);
  EXPECT_LE(rounded.largest_error, 0x1p-11);
  EXPECT_NE(rounding_note(rounded.largest_error), "");
}

TEST(RoundScales, MovesNumbersThatHalfPrecisionCannotHold) {
  for (const float unit : {0x1p100f, 0x1p20f, 0x1p-30f, 0x1p-100f}) {
    const std::vector<float> scales = {unit, 1.5f * unit, unit / 1024, 0};
    const RoundedScales rounded = round_scales(scales);
    EXPECT_NE(rounded.exponent, 0);
    EXPECT_EQ(rounded.largest_error, 0) << unit;
    for (size_t i = 0; i < scales.size(); ++i) EXPECT_EQ(rounded.value(i), scales[i]) << unit;
  }
}

TEST(RoundScales, NeverOverflows) {
  const std::vector<float> scales = {3.4028235e38f, 65519.9f, 1.0f};
  const RoundedScales rounded = round_scales(scales);
  for (size_t i = 0; i < scales.size(); ++i) EXPECT_TRUE(std::isfinite(rounded.value(i)));
}

TEST(RoundScales, OfNothingIsNothing) { EXPECT_TRUE(round_scales({}).halves.empty()); }

}  // namespace
}  // namespace quern
