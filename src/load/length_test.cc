#include "load/length.h"

#include <cmath>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "load/numbers.h"

namespace quern {
namespace {

using testing::HasSubstr;

LengthDistribution parse(const std::string& text) {
  const Result<LengthDistribution> parsed = LengthDistribution::parse(text, "--input-tokens");
  EXPECT_TRUE(parsed) << (parsed ? "" : parsed.error().message);
  return parsed ? *parsed : LengthDistribution::fixed(1);
}

std::vector<int64_t> draw(const std::string& text, uint64_t seed, size_t count = 20'000) {
  const LengthDistribution distribution = parse(text);
  std::vector<int64_t> lengths;
  for (uint64_t i = 0; i < count; ++i) {
    RandomStream random(seed, RandomPurpose::kInputTokens, i);
    lengths.push_back(distribution.draw(random));
  }
  return lengths;
}

double mean_of(const std::vector<int64_t>& lengths) {
  double sum = 0;
  for (const int64_t length : lengths) sum += static_cast<double>(length);
  return sum / static_cast<double>(lengths.size());
}

double deviation_of(const std::vector<int64_t>& lengths) {
  const double mean = mean_of(lengths);
  double sum = 0;
  for (const int64_t length : lengths) sum += std::pow(static_cast<double>(length) - mean, 2);
  return std::sqrt(sum / static_cast<double>(lengths.size()));
}

TEST(Length, OfANumberIsThatNumber) {
  EXPECT_THAT(draw("128", 1, 100), testing::Each(128));
  EXPECT_THAT(draw("fixed(7)", 1, 100), testing::Each(7));
}

TEST(Length, OfAUniformDistributionTakesEveryValueAlike) {
  std::map<int64_t, int> counts;
  for (const int64_t length : draw("uniform(3,6)", 1)) ++counts[length];
  ASSERT_EQ(counts.size(), 4u);
  EXPECT_EQ(counts.begin()->first, 3);
  for (const auto& [length, count] : counts) EXPECT_NEAR(count, 5000, 5 * 61.3) << length;
}

TEST(Length, OfANormalDistributionHasItsMeanAndDeviation) {
  const std::vector<int64_t> lengths = draw("normal(500,50)", 2);
  EXPECT_NEAR(mean_of(lengths), 500, 5 * 50 / std::sqrt(20'000));
  EXPECT_NEAR(deviation_of(lengths), 50, 5 * 50 / std::sqrt(40'000));
}

TEST(Length, OfALognormalDistributionHasItsMedianAndMean) {
  std::vector<int64_t> lengths = draw("lognormal(200,0.5)", 3);
  const double mean = 200 * std::exp(0.125);
  const double deviation = mean * std::sqrt(std::exp(0.25) - 1);
  EXPECT_NEAR(mean_of(lengths), mean, 5 * deviation / std::sqrt(20'000));
  std::nth_element(lengths.begin(), lengths.begin() + 10'000, lengths.end());
  EXPECT_NEAR(static_cast<double>(lengths[10'000]), 200, 5);
}

TEST(Length, StaysWithinItsBounds) {
  for (const int64_t length : draw("normal(1,100)", 4, 1000)) EXPECT_GE(length, 1);
  for (const int64_t length : draw("lognormal(1000000,9)", 4, 1000)) {
    EXPECT_LE(length, kMaxLengthTokens);
    EXPECT_GE(length, 1);
  }
}

TEST(Length, DependsOnTheSeedAndTheIndexAlone) {
  EXPECT_EQ(draw("normal(500,50)", 2, 50), draw("normal(500,50)", 2, 50));
  EXPECT_NE(draw("normal(500,50)", 2, 50), draw("normal(500,50)", 3, 50));
}

TEST(Length, ReadsBackWhatItSays) {
  for (const char* text : {"128", "uniform(3,6)", "normal(500,50)", "lognormal(200,0.5)"}) {
    EXPECT_EQ(parse(text).text(), text);
  }
}

TEST(Length, RefusesWhatItIsNot) {
  for (const char* text :
       {"", "0", "-5", "1.5", "5000000", "a", "uniform(1)", "uniform(6,3)", "uniform(1,2,3)",
        "uniform(1,2", "uniform 1,2)", "normal(0,1)", "normal(5,-1)", "normal(5,nan)", "zipf(1,2)",
        "lognormal(5,)", "fixed(1,2)", "inf", "()"}) {
    const Result<LengthDistribution> parsed = LengthDistribution::parse(text, "--input-tokens");
    ASSERT_FALSE(parsed) << text;
    EXPECT_THAT(parsed.error().message, HasSubstr("--input-tokens is \"" + std::string(text)));
  }
}

TEST(Numbers, AreReadWhole) {
  EXPECT_EQ(read_number("1.5"), 1.5);
  for (const char* text : {"", " 1", "1 ", "1x", "inf", "nan", "1e999"}) {
    EXPECT_EQ(read_number(text), std::nullopt) << text;
  }
}

TEST(Numbers, OfTimeHaveAUnit) {
  EXPECT_EQ(read_duration_ms("500ms"), 500);
  EXPECT_EQ(read_duration_ms("2s"), 2000);
  EXPECT_EQ(read_duration_ms("1.5s"), 1500);
  EXPECT_EQ(read_duration_ms("250us"), 0.25);
  for (const char* text : {"", "5", "ms", "5m", "-5ms", "5 ms", "1.2.3s"}) {
    EXPECT_EQ(read_duration_ms(text), std::nullopt) << text;
  }
}

}  // namespace
}  // namespace quern
