// What a token costs and earns: from a measured throughput, a price per hour and a price list to
// cost per million tokens, gross margin and break-even, never without the assumptions behind them.
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"

namespace quern {

// What a machine costs to run, and where that figure is from.
struct HardwareProfile {
  std::string name;
  double usd_per_hour = 0;
  std::string price_source;
  std::string price_date;  // ISO 8601
};

// Reads a TOML file with the keys name, usd_per_hour, price_source and price_date, all required.
// Errors: kNotFound, kInvalidArgument naming the file, the key and the value.
Result<HardwareProfile> read_hardware_profile(const std::filesystem::path& path);

// One operating point: how fast, for which request shape, sold at which prices.
struct CostInputs {
  double usd_per_hour = 0;

  // All sequences together, while decoding. Required.
  double decode_tokens_per_second = 0;
  // While reading prompts; 0: prompts are not modelled and every hour goes into output tokens.
  double prefill_tokens_per_second = 0;
  // Mean lengths of a request; used only with prefill_tokens_per_second.
  double input_tokens = 0;
  double output_tokens = 0;

  double utilization = 1.0;  // share of the hour that is busy, in (0, 1]
  double output_usd_per_million = 0;
  double input_usd_per_million = 0;
};

struct CostCard {
  // Cost is allocated to prompt and output by the machine time that each takes, so the two parts
  // and nothing else add up to the hourly price.
  double cost_usd_per_million_output_tokens = 0;
  double cost_usd_per_million_input_tokens = 0;  // 0 when prompts are not modelled
  double output_tokens_per_hour = 0;
  double input_tokens_per_hour = 0;
  double revenue_usd_per_hour = 0;
  double profit_usd_per_hour = 0;
  double gross_margin = 0;  // profit / revenue
  // The price of a million output tokens at which profit is zero, the input price staying.
  double break_even_usd_per_million = 0;
  // Output tokens per second at full load for each dollar of the hourly price.
  double tokens_per_second_per_usd_hour = 0;
};

// Errors: kInvalidArgument naming the input that is out of range: all rates and the hourly price
// are positive and finite, utilization lies in (0, 1], prices are not negative and not all zero,
// prompt modelling needs both rates and both lengths.
Result<CostCard> cost_card(const CostInputs& inputs);

// The assumptions without which no figure is printed: name and value, in the order of printing.
using Disclosure = std::vector<std::pair<std::string, std::string>>;

// The names that a disclosure must have.
std::vector<std::string> required_disclosure();

// Errors: kInvalidArgument listing every required name that is absent or empty.
Result<Unit> check_disclosure(const Disclosure& disclosure);

}  // namespace quern
