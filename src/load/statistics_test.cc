#include "load/statistics.h"

#include <gtest/gtest.h>

namespace quern {
namespace {

// By hand: of 10, 20, 30, 40 the place of p90 is 0.9 * 3 = 2.7, that of p95 2.85, of p99 2.97.
TEST(Statistics, InterpolateBetweenTwoValues) {
  const Summary summary = summarize({40, 10, 30, 20});
  EXPECT_EQ(summary.count, 4u);
  EXPECT_DOUBLE_EQ(summary.mean, 25);
  EXPECT_DOUBLE_EQ(summary.median, 25);
  EXPECT_DOUBLE_EQ(summary.p90, 37);
  EXPECT_DOUBLE_EQ(summary.p95, 38.5);
  EXPECT_DOUBLE_EQ(summary.p99, 39.7);
  EXPECT_DOUBLE_EQ(summary.max, 40);
}

TEST(Statistics, OfAHundredAndOneValuesHitThem) {
  std::vector<double> values;
  for (int i = 100; i >= 0; --i) values.push_back(i);
  const Summary summary = summarize(values);
  EXPECT_DOUBLE_EQ(summary.median, 50);
  EXPECT_DOUBLE_EQ(summary.p90, 90);
  EXPECT_DOUBLE_EQ(summary.p99, 99);
}

TEST(Statistics, OfOneValueAreThatValue) {
  const Summary summary = summarize({7});
  EXPECT_EQ(summary.mean, 7);
  EXPECT_EQ(summary.median, 7);
  EXPECT_EQ(summary.p99, 7);
  EXPECT_DOUBLE_EQ(percentile({7}, 0), 7);
  EXPECT_DOUBLE_EQ(percentile({7}, 100), 7);
}

TEST(Statistics, OfNothingAreZero) {
  EXPECT_EQ(summarize({}).count, 0u);
  EXPECT_EQ(summarize({}).p99, 0);
}

}  // namespace
}  // namespace quern
