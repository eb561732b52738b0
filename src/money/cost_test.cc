#include "money/cost.h"

#include <cmath>
#include <filesystem>
#include <limits>

#include <gtest/gtest.h>
#include <unistd.h>

#include "base/file.h"

namespace quern {
namespace {

namespace fs = std::filesystem;

CostInputs at(double tokens_per_second, double price = 2.0) {
  return {.usd_per_hour = 5.616,
          .decode_tokens_per_second = tokens_per_second,
          .output_usd_per_million = price};
}

TEST(CostCard, GivesThePublishedMargins) {
  const CostCard slow = *cost_card(at(1200));
  EXPECT_NEAR(slow.gross_margin, 0.35, 1e-12);
  EXPECT_NEAR(slow.cost_usd_per_million_output_tokens, 1.30, 1e-12);
  EXPECT_NEAR(slow.profit_usd_per_hour, 3.024, 1e-12);
  EXPECT_NEAR(slow.tokens_per_second_per_usd_hour, 213.675, 1e-3);
  const CostCard fast = *cost_card(at(1500));
  EXPECT_NEAR(fast.gross_margin, 0.48, 1e-12);
  EXPECT_NEAR(fast.cost_usd_per_million_output_tokens, 1.04, 1e-12);
  EXPECT_NEAR(fast.profit_usd_per_hour, 5.184, 1e-12);
}

TEST(CostCard, NegotiatedPricesCanLoseMoney) {
  EXPECT_NEAR(cost_card(at(1200, 1.20))->gross_margin, -0.0833333, 1e-6);
  EXPECT_NEAR(cost_card(at(1500, 1.20))->gross_margin, 0.1333333, 1e-6);
  EXPECT_NEAR(cost_card(at(1200, 0.80))->gross_margin, -0.625, 1e-12);
  EXPECT_NEAR(cost_card(at(1500, 0.80))->gross_margin, -0.30, 1e-12);
}

TEST(CostCard, IdleHoursArePaidForByTheBusyOnes) {
  CostInputs inputs = at(1200);
  inputs.usd_per_hour = 1.74;
  inputs.utilization = 0.31;
  EXPECT_NEAR(cost_card(inputs)->gross_margin, 0.35, 1e-3);
}

TEST(CostCard, TheBreakEvenPriceEarnsNothing) {
  CostInputs inputs = at(900);
  inputs.prefill_tokens_per_second = 8000;
  inputs.input_tokens = 512;
  inputs.output_tokens = 128;
  inputs.input_usd_per_million = 0.1;
  inputs.output_usd_per_million = cost_card(inputs)->break_even_usd_per_million;
  EXPECT_NEAR(cost_card(inputs)->profit_usd_per_hour, 0, 1e-9);
}

TEST(CostCard, InputAndOutputCostsAddUpToTheHour) {
  CostInputs inputs = at(900);
  inputs.prefill_tokens_per_second = 8000;
  inputs.input_tokens = 1000;
  inputs.output_tokens = 10;
  inputs.utilization = 0.5;
  const CostCard card = *cost_card(inputs);
  const double total = card.cost_usd_per_million_output_tokens * card.output_tokens_per_hour +
                       card.cost_usd_per_million_input_tokens * card.input_tokens_per_hour;
  EXPECT_NEAR(total / 1e6, inputs.usd_per_hour, 1e-9);
}

TEST(CostCard, RefusesWhatMakesNoSense) {
  const auto refused = [](CostInputs inputs) {
    const auto card = cost_card(inputs);
    return !card.has_value() && card.error().code == ErrorCode::kInvalidArgument;
  };
  EXPECT_TRUE(refused(at(0)));
  EXPECT_TRUE(refused(at(std::numeric_limits<double>::quiet_NaN())));
  EXPECT_TRUE(refused(at(1200, -1)));
  EXPECT_TRUE(refused(at(1200, 0)));
  CostInputs inputs = at(1200);
  inputs.utilization = 1.01;
  EXPECT_TRUE(refused(inputs));
  inputs = at(1200);
  inputs.input_usd_per_million = 1;
  EXPECT_TRUE(refused(inputs));
  inputs.prefill_tokens_per_second = 100;
  EXPECT_TRUE(refused(inputs));
  inputs = at(1200);
  inputs.usd_per_hour = -3;
  EXPECT_TRUE(refused(inputs));
}

TEST(Disclosure, ListsWhatIsMissing) {
  Disclosure disclosure;
  for (const std::string& name : required_disclosure()) disclosure.emplace_back(name, "x");
  EXPECT_TRUE(check_disclosure(disclosure).has_value());
  disclosure.back().second.clear();
  const auto result = check_disclosure(disclosure);
  ASSERT_FALSE(result.has_value());
  EXPECT_NE(result.error().message.find(required_disclosure().back()), std::string::npos);
}

class HardwareProfileTest : public testing::Test {
 protected:
  void TearDown() override { fs::remove(path_); }
  Result<HardwareProfile> read(const std::string& text) {
    write_file(path_, text);
    return read_hardware_profile(path_);
  }
  fs::path path_ = fs::temp_directory_path() / ("quern_hardware_" + std::to_string(::getpid()));
};

TEST_F(HardwareProfileTest, ReadsPriceSourceAndDate) {
  const auto profile = read(
      "name = \"2 vCPU\"\nusd_per_hour = 0.096\nprice_source = \"a price list\"\n"
      "price_date = 2026-11-01\n");
  ASSERT_TRUE(profile.has_value()) << profile.error().message;
  EXPECT_EQ(profile->price_date, "2026-11-01");
  EXPECT_EQ(profile->usd_per_hour, 0.096);
}

TEST_F(HardwareProfileTest, NamesTheFileAndTheKeyThatIsWrong) {
  EXPECT_NE(read("name = \"x\"").error().message.find("price_source"), std::string::npos);
  EXPECT_NE(read("name = ").error().message.find(":1:"), std::string::npos);
  const std::string rest = "name='x'\nprice_source='y'\nprice_date='2026-11-01'\n";
  EXPECT_NE(read(rest + "usd_per_hour = -1").error().message.find("usd_per_hour"),
            std::string::npos);
  EXPECT_EQ(read_hardware_profile("/no/such/file.toml").error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace quern
