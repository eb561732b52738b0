#include "model/head.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/float16.h"
#include "base/random.h"
#include "model/footprint.h"
#include "model/test_support.h"

namespace quern {
namespace {

using testing::Contains;
using testing::HasSubstr;

DenseWeight random_matrix(int64_t rows, int64_t columns) {
  DenseWeight weight;
  weight.owned = Buffer(static_cast<size_t>(rows * columns) * sizeof(float));
  auto* values = weight.owned.as<float>();
  for (int64_t i = 0; i < rows * columns; ++i) {
    values[i] = static_cast<float>(random_uniform(7, 0, static_cast<uint64_t>(i))) - 0.4f;
  }
  weight.values = Tensor(values, DType::kF32, {rows, columns});
  return weight;
}

TEST(RoundToInt8, StaysWithinHalfAStepOfEveryNumber) {
  ThreadPool pool(2);
  const Weight dense(random_matrix(70, 64));
  const GroupedWeight rounded = round_to_int8(dense, 32, pool);
  const FloatMatrix before = widen(dense);
  const FloatMatrix after = widen(Weight(rounded));
  for (int64_t r = 0; r < 70; ++r) {
    for (int64_t k = 0; k < 64; ++k) {
      const float step = rounded.scales[static_cast<size_t>(r * 2 + k / 32)];
      // The scale is f16: the largest number of a group may clamp by 127 x 2^-12 of a step.
      EXPECT_LE(std::fabs(before.row(r)[k] - after.row(r)[k]), 0.54f * step);
    }
  }
}

TEST(RoundToInt8, LeavesRowsOfZerosZero) {
  ThreadPool pool(1);
  DenseWeight dense = random_matrix(2, 32);
  std::fill_n(dense.owned.as<float>() + 32, 32, 0.0f);
  const FloatMatrix after = widen(Weight(round_to_int8(Weight(std::move(dense)), 32, pool)));
  for (int64_t k = 0; k < 32; ++k) EXPECT_EQ(after.row(1)[k], 0.0f);
  EXPECT_NE(after.row(0)[0], 0.0f);
}

std::optional<int> group_of(std::string_view golden, Precision precision, HeadFormat format) {
  const auto checkpoint = Checkpoint::open(test::golden(golden)).value();
  const ModelSpec spec = read_spec(*checkpoint).value();
  return head_group_size(spec, *checkpoint, precision, format).value();
}

TEST(HeadGroupSize, FollowsTheBlocksUnlessToldOtherwise) {
  EXPECT_EQ(group_of("awq", Precision::kFast, HeadFormat::kAuto), 64);
  EXPECT_EQ(group_of("awq", Precision::kFast, HeadFormat::kStored), std::nullopt);
  EXPECT_EQ(group_of("awq", Precision::kFloat32, HeadFormat::kInt8), std::nullopt);
  EXPECT_EQ(group_of("fp8", Precision::kFast, HeadFormat::kAuto), 64);
  EXPECT_EQ(group_of("llama", Precision::kFast, HeadFormat::kAuto), std::nullopt);
  EXPECT_EQ(group_of("llama", Precision::kFast, HeadFormat::kInt8), 64);
}

TEST(LoadModel, HoldsADenseHeadInEightBitsAndSaysSo) {
  const auto backend = test::backend("cpu");
  const auto checkpoint = Checkpoint::open(test::golden("awq")).value();
  const auto expected = test::read_expected(test::golden("awq") / "expected.safetensors");
  LoadOptions options;
  options.limits = {.max_batch_tokens = 64, .max_logit_rows = 64, .kv_blocks = 8};
  LoadReport stored, rounded;
  options.head = HeadFormat::kStored;
  const auto exact = load_model(*checkpoint, *backend, options, &stored).value();
  options.head = HeadFormat::kAuto;
  const auto held = load_model(*checkpoint, *backend, options, &rounded).value();
  EXPECT_LT(rounded.weight_bytes, stored.weight_bytes);
  EXPECT_THAT(rounded.notes, Contains(HasSubstr("head: held in 8 bits, groups of 64 (1 matrix)")));
  const double error = test::relative_error(test::run_in_chunks(*held, expected.tokens, 16),
                                            test::run_in_chunks(*exact, expected.tokens, 16));
  EXPECT_GT(error, 0);
  EXPECT_LT(error, 0.02);
}

TEST(LoadModel, HoldsFp8AsIntegersWhenRunFast) {
  const auto backend = test::backend("cpu");
  for (const char* golden : {"fp8", "fp8_compressed"}) {
    const auto checkpoint = Checkpoint::open(test::golden(golden)).value();
    const auto expected = test::read_expected(test::golden(golden) / "expected.safetensors");
    LoadOptions options;
    options.limits = {.max_batch_tokens = 64, .max_logit_rows = 64, .kv_blocks = 8};
    options.limits.kv_dtype = KvDType::kF32;
    LoadReport widened, fast;
    options.precision = Precision::kBF16;
    ASSERT_TRUE(load_model(*checkpoint, *backend, options, &widened));
    options.precision = Precision::kFast;
    options.head = HeadFormat::kStored;
    const auto held = load_model(*checkpoint, *backend, options, &fast).value();
    EXPECT_LT(fast.weight_bytes, widened.weight_bytes);
    EXPECT_THAT(fast.notes, Contains(HasSubstr("held as 8-bit integers, groups of 64")));
    EXPECT_THAT(fast.notes, Contains(HasSubstr("held as 8-bit integers, groups of 32")));
    const FloatMatrix logits = test::run_in_chunks(*held, expected.tokens, 16);
    EXPECT_LT(test::relative_error(logits, expected.logits), 0.05);  // activations are int8, too
  }
}

TEST(WeightFootprint, CountsFp8AsItIsHeld) {
  const auto backend = test::backend("cpu");
  const auto checkpoint = Checkpoint::open(test::golden("fp8")).value();
  for (const Precision precision : {Precision::kFast, Precision::kBF16}) {
    LoadOptions options;
    options.precision = precision;
    options.limits.kv_blocks = 1;
    LoadReport report;
    ASSERT_TRUE(load_model(*checkpoint, *backend, options, &report));
    const WeightFootprint planned =
        weight_footprint(read_spec(*checkpoint).value(), *checkpoint, precision).value();
    EXPECT_GE(report.weight_bytes, planned.packed_bytes);
    EXPECT_LE(report.weight_bytes, planned.packed_bytes * 11 / 10);
  }
}

TEST(WeightFootprint, CountsTheHeadAsItIsHeld) {
  const auto backend = test::backend("cpu");
  const auto checkpoint = Checkpoint::open(test::golden("awq")).value();
  LoadOptions options;
  options.limits.kv_blocks = 1;
  LoadReport report;
  ASSERT_TRUE(load_model(*checkpoint, *backend, options, &report));
  const WeightFootprint planned =
      weight_footprint(read_spec(*checkpoint).value(), *checkpoint, Precision::kFast).value();
  EXPECT_GE(report.weight_bytes, planned.packed_bytes);
  EXPECT_LE(report.weight_bytes, planned.packed_bytes * 11 / 10);
}

}  // namespace
}  // namespace quern
