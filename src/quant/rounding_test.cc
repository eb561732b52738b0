#include "quant/rounding.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "base/float16.h"
#include "quant/test_random.h"

namespace quern {
namespace {

TEST(Rounding, ScaleIsRangeOverFifteenRoundedToF16) {
  const GroupGrid grid = fit_grid(-1.0f, 2.0f);
  EXPECT_EQ(grid.scale, f16_to_f32(f32_to_f16(3.0f / 15.0f)));
  EXPECT_EQ(grid.zero, 5.0f);
}

TEST(Rounding, ZeroPointStaysBetweenZeroAndFifteen) {
  EXPECT_EQ(fit_grid(0.5f, 2.0f).zero, 0.0f);
  EXPECT_EQ(fit_grid(-2.0f, -0.5f).zero, 15.0f);
}

TEST(Rounding, RangeAlwaysHoldsZero) {
  EXPECT_EQ(fit_grid(1.0f, 2.0f).scale, f16_to_f32(f32_to_f16(2.0f / 15.0f)));
  EXPECT_EQ(nearest(0.0f, fit_grid(1.0f, 2.0f)), 0.0f);
}

TEST(Rounding, EqualWeightsHaveAScaleThatF16Holds) {
  const GroupGrid grid = fit_grid(0.0f, 0.0f);
  EXPECT_GT(grid.scale, 0.0f);
  EXPECT_EQ(grid.scale, f16_to_f32(f32_to_f16(grid.scale)));
  EXPECT_EQ(nearest(0.0f, grid), 0.0f);
}

TEST(Rounding, TiesGoToTheEvenCode) {
  const GroupGrid grid{.scale = 1.0f, .zero = 4.0f};
  EXPECT_EQ(encode(0.5f, grid), 4.0f);
  EXPECT_EQ(encode(1.5f, grid), 6.0f);
  EXPECT_EQ(encode(-0.5f, grid), 4.0f);
  EXPECT_EQ(encode(-1.5f, grid), 2.0f);
}

TEST(Rounding, WeightsOutsideTheGridSaturate) {
  const GroupGrid grid{.scale = 1.0f, .zero = 4.0f};
  EXPECT_EQ(encode(1e30f, grid), 15.0f);
  EXPECT_EQ(encode(-1e30f, grid), 0.0f);
}

TEST(Rounding, LargestWeightHasAFiniteScale) {
  EXPECT_EQ(fit_grid(0.0f, kMaxWeight).scale, 65504.0f);
}

TEST(Rounding, EveryWeightLiesWithinHalfAStepOfItsCode) {
  ThreadPool pool(2);
  const FloatMatrix w = test::normal_matrix(1, 24, 128);
  const GroupedWeight rounded = round_to_nearest(pool, w.tensor(), 32);
  FloatMatrix back(24, 128);
  dequantize(pool, rounded, back.tensor());
  for (int64_t row = 0; row < 24; ++row) {
    for (int64_t i = 0; i < 128; ++i) {
      const float scale = grid_at(rounded, row, i / 32).scale;
      // The zero point and the scale are rounded too: at the ends of the range up to one step.
      EXPECT_LE(std::fabs(back.row(row)[i] - w.row(row)[i]), 1.01f * scale);
    }
  }
}

TEST(Rounding, DequantizedNumbersAreThoseOfTheFormat) {
  ThreadPool pool(1);
  const FloatMatrix w = test::normal_matrix(2, 8, 64);
  const GroupedWeight rounded = round_to_nearest(pool, w.tensor(), 64);
  FloatMatrix back(8, 64);
  dequantize(pool, rounded, back.tensor());
  const FloatMatrix meant = widen(Weight(rounded));
  for (int64_t i = 0; i < 8 * 64; ++i) EXPECT_EQ(back.data()[i], meant.data()[i]);
}

TEST(Rounding, NumbersOnTheGridStayThemselves) {
  ThreadPool pool(1);
  FloatMatrix w(1, 32);
  for (int64_t i = 0; i < 32; ++i) w.row(0)[i] = 0.25f * static_cast<float>(i % 16 - 6);
  const GroupedWeight rounded = round_to_nearest(pool, w.tensor(), 32);
  FloatMatrix back(1, 32);
  dequantize(pool, rounded, back.tensor());
  for (int64_t i = 0; i < 32; ++i) EXPECT_EQ(back.row(0)[i], w.row(0)[i]);
}

TEST(Rounding, NearestScaleIsAPositiveNumberOfF16) {
  EXPECT_EQ(nearest_scale(0.25f), 0.25f);
  EXPECT_EQ(nearest_scale(1e6f), 65504.0f);
  EXPECT_GT(nearest_scale(1e-12f), 0.0f);
}

}  // namespace
}  // namespace quern
