#include "money/cost.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <toml++/toml.h>

namespace quern {
namespace {

constexpr double kSecondsPerHour = 3600;
constexpr double kMillion = 1e6;

Error out_of_range(const char* name, double value, const char* expected) {
  return {ErrorCode::kInvalidArgument, fmt::format("{} is {}; expected {}", name, value, expected)};
}

Result<Unit> require_positive(const char* name, double value) {
  if (!std::isfinite(value) || value <= 0) return out_of_range(name, value, "a positive number");
  return Unit{};
}

Result<Unit> require_price(const char* name, double value) {
  if (!std::isfinite(value) || value < 0) return out_of_range(name, value, "zero or more");
  return Unit{};
}

Result<Unit> check_inputs(const CostInputs& in) {
  QUERN_TRY(require_positive("the hourly price in USD", in.usd_per_hour));
  QUERN_TRY(require_positive("decode tokens per second", in.decode_tokens_per_second));
  QUERN_TRY(require_positive("utilization", in.utilization));
  if (in.utilization > 1) return out_of_range("utilization", in.utilization, "at most 1");
  QUERN_TRY(require_price("the output price per million tokens", in.output_usd_per_million));
  QUERN_TRY(require_price("the input price per million tokens", in.input_usd_per_million));
  if (in.output_usd_per_million + in.input_usd_per_million == 0) {
    return Error{ErrorCode::kInvalidArgument, "no price: every token would be given away"};
  }
  if (in.prefill_tokens_per_second == 0) {
    if (in.input_usd_per_million > 0) {
      return Error{ErrorCode::kInvalidArgument,
                   "a price for input tokens needs a measured prefill rate and the lengths of "
                   "prompt and answer"};
    }
    return Unit{};
  }
  QUERN_TRY(require_positive("prefill tokens per second", in.prefill_tokens_per_second));
  QUERN_TRY(require_positive("input tokens per request", in.input_tokens));
  QUERN_TRY(require_positive("output tokens per request", in.output_tokens));
  return Unit{};
}

Result<toml::table> parse_toml(const std::string& file) {
  try {
    return toml::parse_file(file);
  } catch (const toml::parse_error& error) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}:{}: {}", file, error.source().begin.line, error.description())};
  }
}

Result<std::string> required_string(const toml::table& table,
                                    const char* key,
                                    const std::string& file) {
  const std::optional<std::string> value = table[key].value<std::string>();
  if (value && !value->empty()) return *value;
  // Dates may be written without quotes.
  if (const auto date = table[key].value<toml::date>()) {
    return fmt::format("{:04}-{:02}-{:02}", date->year, date->month, date->day);
  }
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{}: \"{}\" is missing or empty; expected text", file, key)};
}

}  // namespace

Result<HardwareProfile> read_hardware_profile(const std::filesystem::path& path) {
  const std::string file = path.string();
  if (!std::filesystem::exists(path)) {
    return Error{ErrorCode::kNotFound, fmt::format("{}: no such file", file)};
  }
  const toml::table table = QUERN_TRY(parse_toml(file));
  HardwareProfile profile;
  profile.name = QUERN_TRY(required_string(table, "name", file));
  profile.price_source = QUERN_TRY(required_string(table, "price_source", file));
  profile.price_date = QUERN_TRY(required_string(table, "price_date", file));
  const std::optional<double> price = table["usd_per_hour"].value<double>();
  if (!price || !std::isfinite(*price) || *price <= 0) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: \"usd_per_hour\" is missing or not a positive number", file)};
  }
  profile.usd_per_hour = *price;
  return profile;
}

Result<CostCard> cost_card(const CostInputs& in) {
  QUERN_TRY(check_inputs(in));
  const bool has_prompts = in.prefill_tokens_per_second > 0;
  // Seconds of the machine that one output token takes, for itself and for its share of the prompt.
  const double decode_seconds = 1 / in.decode_tokens_per_second;
  const double inputs_per_output = has_prompts ? in.input_tokens / in.output_tokens : 0;
  const double prefill_seconds = has_prompts ? inputs_per_output / in.prefill_tokens_per_second : 0;
  const double busy_seconds = kSecondsPerHour * in.utilization;

  CostCard card;
  card.output_tokens_per_hour = busy_seconds / (decode_seconds + prefill_seconds);
  card.input_tokens_per_hour = card.output_tokens_per_hour * inputs_per_output;
  const double decode_share = decode_seconds / (decode_seconds + prefill_seconds);
  card.cost_usd_per_million_output_tokens =
      in.usd_per_hour * decode_share / card.output_tokens_per_hour * kMillion;
  if (has_prompts) {
    card.cost_usd_per_million_input_tokens =
        in.usd_per_hour * (1 - decode_share) / card.input_tokens_per_hour * kMillion;
  }
  const double input_revenue = card.input_tokens_per_hour / kMillion * in.input_usd_per_million;
  card.revenue_usd_per_hour =
      card.output_tokens_per_hour / kMillion * in.output_usd_per_million + input_revenue;
  card.profit_usd_per_hour = card.revenue_usd_per_hour - in.usd_per_hour;
  card.gross_margin = card.profit_usd_per_hour / card.revenue_usd_per_hour;
  card.break_even_usd_per_million =
      std::max(0.0, in.usd_per_hour - input_revenue) / card.output_tokens_per_hour * kMillion;
  card.tokens_per_second_per_usd_hour = 1 / (decode_seconds + prefill_seconds) / in.usd_per_hour;
  return card;
}

std::vector<std::string> required_disclosure() {
  return {"model",        "precision",     "hardware",    "hardware_price",  "batch",
          "input_tokens", "output_tokens", "utilization", "throughput_basis"};
}

Result<Unit> check_disclosure(const Disclosure& disclosure) {
  std::vector<std::string> missing;
  for (const std::string& name : required_disclosure()) {
    const auto it = std::find_if(disclosure.begin(), disclosure.end(),
                                 [&](const auto& entry) { return entry.first == name; });
    if (it == disclosure.end() || it->second.empty()) missing.push_back(name);
  }
  if (missing.empty()) return Unit{};
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("a cost without its assumptions is not comparable; missing: {}",
                           fmt::join(missing, ", "))};
}

}  // namespace quern
