#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "quant/clip_search.h"
#include "quant/feedback.h"
#include "quant/guard.h"
#include "quant/objective.h"
#include "quant/rounding.h"
#include "quant/scale_search.h"
#include "quant/test_random.h"

namespace quern {
namespace {

constexpr int64_t kRows = 40;
constexpr int64_t kColumns = 128;

// Heavy tails: cubes of normals, so that clipping has something to find.
FloatMatrix heavy_weights(uint64_t seed) {
  FloatMatrix w = test::normal_matrix(seed, kRows, kColumns);
  for (int64_t i = 0; i < kRows * kColumns; ++i) w.data()[i] *= 0.05f * w.data()[i] * w.data()[i];
  return w;
}

struct Problem {
  explicit Problem(uint64_t seed)
      : w(heavy_weights(seed)),
        x(test::activations(pool, seed + 100, 512, kColumns)),
        gram(test::gram_of(pool, x)) {}

  // |(v - w) x|^2 a token, summed over rows.
  double cost(const GroupedWeight& rounded) { return cost(rounded, gram); }
  double cost(const GroupedWeight& rounded, const FloatMatrix& of) {
    FloatMatrix d(kRows, kColumns);
    dequantize(pool, rounded, d.tensor());
    subtract(pool, d.tensor(), w.tensor());
    return total_cost(pool, d.tensor(), of.tensor());
  }

  std::vector<float> magnitude() const {
    std::vector<float> mean(kColumns, 0.0f);
    for (int64_t row = 0; row < x.rows(); ++row) {
      for (size_t i = 0; i < mean.size(); ++i)
        mean[i] += std::fabs(x.row(row)[i]) / static_cast<float>(x.rows());
    }
    return mean;
  }

  ThreadPool pool{2};
  FloatMatrix w;
  FloatMatrix x;
  FloatMatrix gram;
};

TEST(Objective, GramCostIsTheMeanSquaredOutputError) {
  Problem p(1);
  const GroupedWeight rounded = round_to_nearest(p.pool, p.w.tensor(), 32);
  FloatMatrix d(kRows, kColumns);
  dequantize(p.pool, rounded, d.tensor());
  subtract(p.pool, d.tensor(), p.w.tensor());
  FloatMatrix errors(p.x.rows(), kRows);
  gemm_f32(p.pool, errors.tensor(), p.x.tensor(), d.tensor(), {.b = Transpose::kYes});
  double sum = 0;
  for (int64_t i = 0; i < errors.rows() * errors.columns(); ++i)
    sum += static_cast<double>(errors.data()[i]) * static_cast<double>(errors.data()[i]);
  sum /= static_cast<double>(p.x.rows());
  EXPECT_NEAR(p.cost(rounded), sum, 1e-4 * sum);
}

class Seeds : public ::testing::TestWithParam<uint64_t> {};

TEST_P(Seeds, ScalesAreNeverWorseThanIdentityAndUsuallyBetter) {
  Problem p(GetParam());
  const ScaleProblem problem{.consumers = {p.w.tensor()},
                             .gram = p.gram.tensor(),
                             .magnitude = p.magnitude(),
                             .group_size = 32};
  const ScaleChoice choice = search_scales(p.pool, problem);
  EXPECT_LT(choice.cost, choice.identity_cost);
  const std::vector<float> ones(kColumns, 1.0f);
  const double exact = p.cost(round_to_nearest(p.pool, p.w.tensor(), 32));
  EXPECT_NEAR(scaled_rounding_cost(p.pool, problem, ones), exact, exact * 0x1p-7);  // BF16
  EXPECT_LE(scaled_rounding_cost(p.pool, problem, choice.scales), choice.identity_cost * 1.0001);
}

TEST_P(Seeds, ClippingIsNeverWorseThanPlainRoundingByItsOwnMeasure) {
  Problem p(GetParam());
  const auto grids = search_grids(p.pool, p.w.tensor(), p.gram.tensor(), 32);
  const GroupedWeight clipped = round_to_grids(p.pool, p.w.tensor(), grids, 32);
  const GroupedWeight plain = round_to_nearest(p.pool, p.w.tensor(), 32);
  // The measure: the groups' own blocks of the Gram matrix.
  FloatMatrix blocks(kColumns, kColumns);
  for (int64_t i = 0; i < kColumns; ++i) {
    for (int64_t k = i / 32 * 32; k < i / 32 * 32 + 32; ++k) blocks.row(i)[k] = p.gram.row(i)[k];
  }
  EXPECT_LT(p.cost(clipped, blocks), p.cost(plain, blocks));
}

// v H w / w H w of every row.
std::vector<double> sizes_of(Problem& p, const GroupedWeight& rounded) {
  FloatMatrix v(kRows, kColumns);
  FloatMatrix product(kRows, kColumns);
  dequantize(p.pool, rounded, v.tensor());
  gemm_f32(p.pool, product.tensor(), p.w.tensor(), p.gram.tensor(), {});
  std::vector<double> sizes;
  for (int64_t row = 0; row < kRows; ++row) {
    double wanted = 0;
    double kept = 0;
    for (int64_t i = 0; i < kColumns; ++i) {
      const auto slope = static_cast<double>(product.row(row)[i]);
      wanted += static_cast<double>(p.w.row(row)[i]) * slope;
      kept += static_cast<double>(v.row(row)[i]) * slope;
    }
    sizes.push_back(kept / wanted);
  }
  return sizes;
}

TEST_P(Seeds, RowsGetBackTheSizeThatClippingTook) {
  Problem p(GetParam());
  const auto grids = search_grids(p.pool, p.w.tensor(), p.gram.tensor(), 32);
  GroupedWeight rounded = round_to_grids(p.pool, p.w.tensor(), grids, 32);
  double clipped = 0;
  for (const double size : sizes_of(p, rounded)) clipped += size / kRows;
  EXPECT_LT(clipped, 0.995);
  const std::vector<uint8_t> codes = rounded.codes;
  restore_size(p.pool, rounded, p.w.tensor(), p.gram.tensor());
  for (const double size : sizes_of(p, rounded)) EXPECT_NEAR(size, 1.0, 1e-3);
  EXPECT_EQ(rounded.codes, codes);
}

TEST(RestoreSize, LeavesRowsWithoutInputAlone) {
  Problem p(3);
  const FloatMatrix nothing(kColumns, kColumns);
  GroupedWeight rounded = round_to_nearest(p.pool, p.w.tensor(), 32);
  const auto scale = grid_at(rounded, 5, 1).scale;
  restore_size(p.pool, rounded, p.w.tensor(), nothing.tensor());
  EXPECT_EQ(grid_at(rounded, 5, 1).scale, scale);
}

TEST_P(Seeds, FeedbackBeatsPlainRoundingAndClipping) {
  Problem p(GetParam());
  auto ordered = order_gram(p.pool, p.gram.tensor(), 32, 0.02f);
  ASSERT_TRUE(ordered.has_value());
  const FloatMatrix wanted = reorder_columns(p.pool, p.w.tensor(), ordered->order);
  const GroupedWeight rounded = round_with_feedback(p.pool, wanted.tensor(), *ordered, 32);
  const double cost = p.cost(restore_order(rounded, ordered->order));
  EXPECT_LT(cost, p.cost(round_to_nearest(p.pool, p.w.tensor(), 32)));
  const auto grids = search_grids(p.pool, p.w.tensor(), p.gram.tensor(), 32);
  EXPECT_LT(cost, p.cost(round_to_grids(p.pool, p.w.tensor(), grids, 32)));
}

TEST_P(Seeds, RefiningNeverRaisesTheCostThatItWorksOn) {
  Problem p(GetParam());
  auto ordered = order_gram(p.pool, p.gram.tensor(), 64, 0.02f);
  ASSERT_TRUE(ordered.has_value());
  const FloatMatrix wanted = reorder_columns(p.pool, p.w.tensor(), ordered->order);
  GroupedWeight rounded = round_with_feedback(p.pool, wanted.tensor(), *ordered, 64);
  const auto cost = [&](const GroupedWeight& weight) {
    FloatMatrix d(kRows, kColumns);
    dequantize(p.pool, weight, d.tensor());
    subtract(p.pool, d.tensor(), wanted.tensor());
    return row_costs(p.pool, d.tensor(), ordered->gram.tensor(), nullptr);
  };
  const std::vector<double> before = cost(rounded);
  refine(p.pool, rounded, wanted.tensor(), *ordered, 8);
  const std::vector<double> after = cost(rounded);
  double gained = 0;
  for (size_t row = 0; row < before.size(); ++row) {
    EXPECT_LE(after[row], before[row] * 1.0001);
    gained += before[row] - after[row];
  }
  EXPECT_GT(gained, 0.0);
}

TEST_P(Seeds, GuardNeverRaisesTheHeldOutCostOfARow) {
  Problem p(GetParam());
  const FloatMatrix other = test::activations(p.pool, GetParam() + 500, 64, kColumns);
  const FloatMatrix held_out = test::gram_of(p.pool, other);
  GroupedWeight rounded = round_to_nearest(p.pool, p.w.tensor(), 32);
  // Half of the groups are spoilt.
  for (int64_t row = 0; row < kRows; ++row) {
    for (int64_t g = 0; g < rounded.groups(); g += 2)
      encode_group(rounded, row, g, p.w.row(row) + 32 * g, fit_grid(-1e-3f, 1e-3f));
  }
  const double before = p.cost(rounded, held_out);
  const int64_t reverted =
      revert_worse_groups(p.pool, rounded, p.w.tensor(), held_out.tensor(), nullptr);
  EXPECT_GT(reverted, 0);
  EXPECT_LT(p.cost(rounded, held_out), before);
}

INSTANTIATE_TEST_SUITE_P(Random, Seeds, ::testing::Values(1, 2, 3, 4));

TEST(Guard, KeepsGroupsThatAreBetterThanPlainRounding) {
  Problem p(9);
  const auto grids = search_grids(p.pool, p.w.tensor(), p.gram.tensor(), 32);
  GroupedWeight rounded = round_to_nearest(p.pool, p.w.tensor(), 32);
  const GroupedWeight plain = rounded;
  EXPECT_EQ(revert_worse_groups(p.pool, rounded, p.w.tensor(), p.gram.tensor(), nullptr), 0);
  EXPECT_EQ(rounded.codes, plain.codes);
}

TEST(Correct, MovesWeightsToWhatTheInputsAsk) {
  // y = v x exactly, for another v: with no damping the correction finds it.
  Problem p(3);
  const FloatMatrix v = test::normal_matrix(77, kRows, kColumns);
  auto ordered = order_gram(p.pool, p.gram.tensor(), 32, 0.0f);
  ASSERT_TRUE(ordered.has_value());
  FloatMatrix off = copy_of(v.tensor());
  subtract(p.pool, off.tensor(), p.w.tensor());
  FloatMatrix pull(kRows, kColumns);
  gemm_f32(p.pool, pull.tensor(), off.tensor(), p.gram.tensor(), {});
  const FloatMatrix w = reorder_columns(p.pool, p.w.tensor(), ordered->order);
  const FloatMatrix ordered_pull = reorder_columns(p.pool, pull.tensor(), ordered->order);
  correct(p.pool, w.tensor(), ordered_pull.tensor(), *ordered);
  const double before = total_cost(p.pool, off.tensor(), p.gram.tensor());
  const FloatMatrix wanted = reorder_columns(p.pool, v.tensor(), ordered->order);
  subtract(p.pool, w.tensor(), wanted.tensor());
  EXPECT_LT(total_cost(p.pool, w.tensor(), ordered->gram.tensor()), 1e-6 * before);
}

TEST(OrderedGram, KeepsGroupsTogetherWithThePowerfulFirst) {
  Problem p(4);
  auto ordered = order_gram(p.pool, p.gram.tensor(), 32, 0.02f);
  ASSERT_TRUE(ordered.has_value());
  std::vector<int> seen(kColumns, 0);
  double last = INFINITY;
  for (size_t begin = 0; begin < kColumns; begin += 32) {
    double power = 0;
    for (size_t i = begin; i < begin + 32; ++i) {
      const int32_t column = ordered->order[i];
      EXPECT_EQ(column / 32, ordered->order[begin] / 32);
      ++seen[static_cast<size_t>(column)];
      power += static_cast<double>(p.gram.row(column)[column]);
    }
    EXPECT_LE(power, last);
    last = power;
  }
  for (const int count : seen) EXPECT_EQ(count, 1);
}

TEST(OrderedGram, RestoringUndoesReordering) {
  Problem p(5);
  auto ordered = order_gram(p.pool, p.gram.tensor(), 32, 0.02f);
  ASSERT_TRUE(ordered.has_value());
  const FloatMatrix moved = reorder_columns(p.pool, p.w.tensor(), ordered->order);
  const GroupedWeight there = round_to_nearest(p.pool, moved.tensor(), 32);
  const GroupedWeight back = restore_order(there, ordered->order);
  const GroupedWeight direct = round_to_nearest(p.pool, p.w.tensor(), 32);
  EXPECT_EQ(back.codes, direct.codes);
  EXPECT_EQ(back.scales, direct.scales);
  EXPECT_EQ(back.zeros, direct.zeros);
}

TEST(OrderedGram, DoesNotDependOnThreads) {
  Problem p(6);
  std::vector<uint8_t> codes;
  for (const int threads : {1, 3}) {
    ThreadPool pool(threads);
    auto ordered = order_gram(pool, p.gram.tensor(), 32, 0.02f);
    ASSERT_TRUE(ordered.has_value());
    const FloatMatrix wanted = reorder_columns(pool, p.w.tensor(), ordered->order);
    GroupedWeight rounded = round_with_feedback(pool, wanted.tensor(), *ordered, 32);
    refine(pool, rounded, wanted.tensor(), *ordered, 4);
    if (codes.empty()) codes = rounded.codes;
    EXPECT_EQ(codes, rounded.codes);
  }
}

TEST(GroupedQueryClasses, TieTheQueryHeadsOfOneKeyValueHead) {
  // 4 query heads, 2 key-value heads of 2 dimensions.
  EXPECT_EQ(grouped_query_classes(4, 2, 2), (std::vector<int32_t>{0, 1, 0, 1, 2, 3, 2, 3}));
}

TEST(ScaleSearch, TiedChannelsGetOneScale) {
  Problem p(7);
  const ScaleChoice choice =
      search_scales(p.pool, {.consumers = {p.w.tensor()},
                             .gram = p.gram.tensor(),
                             .magnitude = p.magnitude(),
                             .class_of = grouped_query_classes(4, 2, kColumns / 4),
                             .classes = kColumns / 2,
                             .group_size = 32});
  for (size_t i = 0; i < kColumns / 4; ++i) {
    EXPECT_EQ(choice.scales[i], choice.scales[i + kColumns / 4]);
    EXPECT_EQ(choice.scales[i + kColumns / 2], choice.scales[i + 3 * kColumns / 4]);
  }
}

TEST(ScaleSearch, ChannelsWithoutInputLeaveUsableScales) {
  Problem p(8);
  std::vector<float> magnitude = p.magnitude();
  magnitude[5] = 0.0f;
  const ScaleChoice choice = search_scales(p.pool, {.consumers = {p.w.tensor()},
                                                    .gram = p.gram.tensor(),
                                                    .magnitude = magnitude,
                                                    .group_size = 32});
  for (const float s : choice.scales) {
    EXPECT_TRUE(std::isfinite(s));
    EXPECT_GT(s, 0.0f);
  }
}

}  // namespace
}  // namespace quern
