#include "kernels/ref/elementwise.h"

#include <cmath>
#include <numbers>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/ref/attention_testing.h"

namespace quern::ref {
namespace {

using testing_attention::gaussian_matrix;

Tensor matrix(std::vector<float>& values, int64_t rows) {
  return Tensor(values.data(), DType::kF32, {rows, static_cast<int64_t>(values.size()) / rows});
}

TEST(RefElementwise, NormDividesByTheRootOfTheMeanSquare) {
  ThreadPool pool(2);
  std::vector<float> x = {3, 4, 0, 0}, out(4), weight = {1, 2};
  rms_norm(pool, matrix(out, 2), matrix(x, 2), weight, 0.5f);
  EXPECT_FLOAT_EQ(out[0], 3 / std::sqrt(13.0f));
  EXPECT_FLOAT_EQ(out[1], 8 / std::sqrt(13.0f));
  EXPECT_EQ(out[2], 0);
}

TEST(RefElementwise, NormOfHeadsTreatsEachHeadAlone) {
  ThreadPool pool(1);
  std::vector<float> x = {3, 4, 30, 40}, weight = {1, 1};
  const Tensor heads(x.data(), DType::kF32, {1, 2, 2});
  rms_norm(pool, heads, heads, weight, 0.0f);
  EXPECT_FLOAT_EQ(x[0], x[2]);
  EXPECT_FLOAT_EQ(x[1], 4 / std::sqrt(12.5f));
}

TEST(RefElementwise, AddThenNormKeepsTheSum) {
  ThreadPool pool(1);
  std::vector<float> x = {1, 2}, y = {2, 2}, out(2), weight = {1, 1};
  add_rms_norm(pool, matrix(out, 1), matrix(x, 1), matrix(y, 1), weight, 0.0f);
  EXPECT_EQ(x, (std::vector<float>{3, 4}));
  EXPECT_FLOAT_EQ(out[0], 3 / std::sqrt(12.5f));
}

TEST(RefElementwise, RopeTurnsPairsAndLeavesTheRest) {
  ThreadPool pool(1);
  std::vector<float> x = {1, 0, 0, 1, 7, 8};
  const int32_t positions[] = {3};
  const RopeParams params{{std::numbers::pi / 6, 0.0}, 2.0f};  // 90 and 0 degrees
  rope(pool, Tensor(x.data(), DType::kF32, {1, 1, 6}), positions, params);
  EXPECT_NEAR(x[0], 0, 1e-6);
  EXPECT_NEAR(x[2], 2, 1e-6);
  EXPECT_NEAR(x[1], 0, 1e-6);
  EXPECT_NEAR(x[3], 2, 1e-6);
  EXPECT_EQ(x[4], 7);
  EXPECT_EQ(x[5], 8);
}

TEST(RefElementwise, RopeKeepsTheProductOfQueryAndKeyAtADistance) {
  ThreadPool pool(1);
  const RopeParams params{{1.0, 0.1, 0.01, 0.001}, 1.0f};
  const FloatMatrix base = gaussian_matrix(2, 8, 9, 1.0f);
  double products[2];
  const int32_t pairs[2][2] = {{5, 2}, {1000005, 1000002}};
  for (int i = 0; i < 2; ++i) {
    std::vector<float> x(base.data(), base.data() + 16);
    rope(pool, Tensor(x.data(), DType::kF32, {2, 1, 8}), pairs[i], params);
    products[i] = 0;
    for (size_t j = 0; j < 8; ++j) products[i] += static_cast<double>(x[j]) * x[8 + j];
  }
  EXPECT_NEAR(products[0], products[1], 1e-5);
}

TEST(RefElementwise, SiluMultiplyGatesTheSecondHalf) {
  ThreadPool pool(1);
  std::vector<float> x = {0, 1, 5, 3}, out(2);
  silu_multiply(pool, matrix(out, 1), matrix(x, 1));
  EXPECT_EQ(out[0], 0);
  EXPECT_FLOAT_EQ(out[1], static_cast<float>(3 / (1 + std::exp(-1.0))));
}

}  // namespace
}  // namespace quern::ref
