#include "load/arrivals.h"

#include <cmath>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "load/statistics.h"

namespace quern {
namespace {

using testing::Each;
using testing::HasSubstr;

std::vector<double> times_of(const ArrivalOptions& options) {
  Result<std::vector<double>> times = arrival_times(options);
  EXPECT_TRUE(times) << (times ? "" : times.error().message);
  return times ? *times : std::vector<double>();
}

std::string error_of(const ArrivalOptions& options) {
  const Result<std::vector<double>> times = arrival_times(options);
  return times ? "" : times.error().message;
}

std::vector<double> gaps_of(const std::vector<double>& times) {
  std::vector<double> gaps;
  double last = 0;
  for (const double time : times) {
    gaps.push_back(time - last);
    last = time;
  }
  return gaps;
}

struct Moments {
  double mean = 0, variance = 0;
};

Moments moments_of(const std::vector<double>& values) {
  Moments moments;
  const auto count = static_cast<double>(values.size());
  for (const double value : values) moments.mean += value / count;
  for (const double value : values) {
    moments.variance += (value - moments.mean) * (value - moments.mean) / count;
  }
  return moments;
}

constexpr int64_t kMany = 40'000;

class Burstiness : public testing::TestWithParam<double> {};

// A gamma distribution of shape b and mean 1 / rate has the variance 1 / (b rate^2). The estimate
// of the variance from n values of excess kurtosis 6 / b deviates by sqrt((2 + 6 / b) / n) of it.
TEST_P(Burstiness, GivesGapsTheirMeanAndVariance) {
  const double shape = GetParam();
  const Moments moments = moments_of(
      gaps_of(times_of({.rate_per_second = 4, .burstiness = shape, .requests = kMany, .seed = 3})));
  const double variance = 1 / (shape * 16);
  const double deviation = std::sqrt((2 + 6 / shape) / static_cast<double>(kMany));
  EXPECT_NEAR(moments.mean, 0.25, 1e-9);  // scaled to be exact
  EXPECT_NEAR(moments.variance, variance, 5 * deviation * variance);
}

INSTANTIATE_TEST_SUITE_P(Shapes, Burstiness, testing::Values(0.25, 0.5, 1.0, 2.0, 8.0));

TEST(Arrivals, OfAPoissonProcessLeaveOneOverEAboveTheMean) {
  const std::vector<double> gaps =
      gaps_of(times_of({.rate_per_second = 1, .requests = kMany, .seed = 5}));
  const auto above = std::count_if(gaps.begin(), gaps.end(), [](double gap) { return gap > 1; });
  // Five deviations of a binomial share.
  EXPECT_NEAR(static_cast<double>(above) / kMany, std::exp(-1), 5 * 0.4822 / 200);
}

TEST(Arrivals, ComeAtTheSameTimesFromTheSameSeed) {
  const ArrivalOptions options{.rate_per_second = 7, .burstiness = 0.7, .requests = 100, .seed = 9};
  EXPECT_EQ(times_of(options), times_of(options));
  ArrivalOptions other = options;
  other.seed = 10;
  EXPECT_NE(times_of(options), times_of(other));
}

TEST(Arrivals, OfANumberOfRequestsEndWhereTheRateSays) {
  const std::vector<double> times = times_of({.rate_per_second = 20, .requests = 50, .seed = 1});
  ASSERT_EQ(times.size(), 50u);
  EXPECT_NEAR(times.back(), 2.5, 1e-12);
  EXPECT_TRUE(std::is_sorted(times.begin(), times.end()));
}

TEST(Arrivals, OfADurationEndWithinIt) {
  const std::vector<double> times =
      times_of({.rate_per_second = 1000, .duration_seconds = 10, .seed = 1});
  EXPECT_NEAR(static_cast<double>(times.size()), 10'000, 5 * 100);  // a Poisson count
  EXPECT_LE(times.back(), 10);
}

TEST(Arrivals, WithoutBurstsComeEvenly) {
  const std::vector<double> times = times_of(
      {.rate_per_second = 4, .burstiness = std::numeric_limits<double>::infinity(), .requests = 4});
  EXPECT_THAT(times, testing::ElementsAre(0.25, 0.5, 0.75, 1.0));
}

TEST(Arrivals, AtAnInfiniteRateAreAllDueAtOnce) {
  EXPECT_THAT(times_of({.requests = 5}), testing::AllOf(testing::SizeIs(5), Each(0.0)));
  EXPECT_TRUE(times_of({.duration_seconds = 5}).empty());
}

TEST(Arrivals, OfARampBecomeDenser) {
  for (const Ramp ramp : {Ramp::kLinear, Ramp::kExponential}) {
    const double even = std::numeric_limits<double>::infinity();
    const std::vector<double> gaps = gaps_of(times_of({.rate_per_second = 100,
                                                       .burstiness = even,
                                                       .ramp = ramp,
                                                       .ramp_from_per_second = 1,
                                                       .requests = 101}));
    EXPECT_NEAR(gaps.front(), 1, 1e-9);
    EXPECT_NEAR(gaps[50], ramp == Ramp::kLinear ? 1 / 50.5 : 0.1, 1e-9);
    EXPECT_NEAR(gaps.back(), 0.01, 1e-9);
  }
}

TEST(Arrivals, OfARampInTimeReachTheRateAtItsEnd) {
  const double even = std::numeric_limits<double>::infinity();
  const std::vector<double> times = times_of({.rate_per_second = 20,
                                              .burstiness = even,
                                              .ramp = Ramp::kLinear,
                                              .ramp_from_per_second = 10,
                                              .duration_seconds = 100});
  EXPECT_NEAR(static_cast<double>(times.size()), 1500, 10);  // the integral of the rate
}

TEST(Arrivals, RefuseWhatContradictsItself) {
  EXPECT_THAT(error_of({.rate_per_second = 0, .requests = 1}), HasSubstr("--rate is 0"));
  EXPECT_THAT(error_of({.rate_per_second = 1, .burstiness = -1, .requests = 1}),
              HasSubstr("--burstiness is -1"));
  EXPECT_THAT(error_of({.requests = -1}), HasSubstr("--requests is -1"));
  EXPECT_THAT(error_of({}), HasSubstr("needs an end"));
  EXPECT_THAT(error_of({.ramp = Ramp::kLinear, .ramp_from_per_second = 1, .requests = 1}),
              HasSubstr("finite --rate"));
  EXPECT_THAT(error_of({.rate_per_second = 1, .ramp = Ramp::kLinear, .requests = 1}),
              HasSubstr("--ramp-from is 0"));
  EXPECT_THAT(error_of({.rate_per_second = 1e9, .duration_seconds = 1}), HasSubstr("more than"));
}

}  // namespace
}  // namespace quern
