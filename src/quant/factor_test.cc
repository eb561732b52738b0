#include "quant/factor.h"

#include <cmath>

#include <gtest/gtest.h>

#include "quant/objective.h"
#include "quant/test_random.h"

namespace quern {
namespace {

class Factor : public ::testing::TestWithParam<int64_t> {};

TEST_P(Factor, TimesItsTransposeIsTheMatrix) {
  const int64_t n = GetParam();
  ThreadPool pool(2);
  const FloatMatrix x = test::normal_matrix(1, 2 * n, n);
  const FloatMatrix gram = test::gram_of(pool, x);
  const FloatMatrix factor = copy_of(gram.tensor());
  ASSERT_TRUE(factor_upper(pool, factor.tensor()).has_value());
  FloatMatrix product(n, n);
  gemm_f32(pool, product.tensor(), factor.tensor(), factor.tensor(), {.b = Transpose::kYes});
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t k = 0; k < n; ++k) {
      EXPECT_NEAR(product.row(i)[k], gram.row(i)[k], 1e-5f * std::sqrt(static_cast<float>(n)));
      if (k < i) {
        EXPECT_EQ(factor.row(i)[k], 0.0f);
      }
    }
  }
}

TEST_P(Factor, SolvesSystemsFromTheRight) {
  const int64_t n = GetParam();
  ThreadPool pool(2);
  const FloatMatrix gram = test::gram_of(pool, test::normal_matrix(3, 4 * n, n));
  const FloatMatrix factor = copy_of(gram.tensor());
  ASSERT_TRUE(factor_upper(pool, factor.tensor()).has_value());
  const FloatMatrix wanted = test::normal_matrix(4, 10, n);
  FloatMatrix b(10, n);
  gemm_f32(pool, b.tensor(), wanted.tensor(), gram.tensor(), {});
  solve_right(pool, b.tensor(), factor.tensor());
  for (int64_t i = 0; i < 10 * n; ++i) EXPECT_NEAR(b.data()[i], wanted.data()[i], 1e-3f);
}

INSTANTIATE_TEST_SUITE_P(Sizes, Factor, ::testing::Values(1, 5, 64, 65, 129, 150, 192, 333));

TEST(FactorUpper, RefusesAMatrixThatIsNotPositiveDefinite) {
  ThreadPool pool(1);
  FloatMatrix h(2, 2);
  h.row(0)[0] = 1.0f;
  h.row(0)[1] = h.row(1)[0] = 2.0f;
  h.row(1)[1] = 1.0f;
  const auto result = factor_upper(pool, h.tensor());
  ASSERT_FALSE(result.has_value());
  EXPECT_NE(result.error().message.find("not positive definite"), std::string::npos);
}

TEST(FactorUpper, DampingGivesAnAllZeroMatrixAFactor) {
  ThreadPool pool(1);
  const FloatMatrix h(3, 3);
  damp(h.tensor(), 0.01f);
  EXPECT_TRUE(factor_upper(pool, h.tensor()).has_value());
}

TEST(FactorUpper, DampingAddsAShareOfTheMeanDiagonal) {
  FloatMatrix h(2, 2);
  h.row(0)[0] = 1.0f;
  h.row(1)[1] = 3.0f;
  damp(h.tensor(), 0.5f);
  EXPECT_EQ(h.row(0)[0], 2.0f);
  EXPECT_EQ(h.row(1)[1], 4.0f);
  EXPECT_EQ(h.row(0)[1], 0.0f);
}

}  // namespace
}  // namespace quern
