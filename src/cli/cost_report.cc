#include "cli/cost_report.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "cli/console.h"

namespace quern {

std::string format_usd(double usd) {
  const double magnitude = std::fabs(usd);
  const char* sign = usd < 0 ? "-" : "";
  if (magnitude >= 1 || magnitude == 0) return fmt::format("{}${:.4f}", sign, magnitude);
  return fmt::format("{}${:.6f}", sign, magnitude);
}

void set_disclosure(Disclosure* disclosure, const std::string& name, const std::string& value) {
  const auto it = std::find_if(disclosure->begin(), disclosure->end(),
                               [&](const auto& entry) { return entry.first == name; });
  if (it != disclosure->end()) {
    it->second = value;
  } else {
    disclosure->emplace_back(name, value);
  }
}

void add_cost_disclosure(Disclosure* disclosure,
                         const CostInputs& inputs,
                         const std::string& price_basis) {
  const bool named = std::any_of(disclosure->begin(), disclosure->end(),
                                 [](const auto& entry) { return entry.first == "hardware"; });
  if (!named) set_disclosure(disclosure, "hardware", "not stated: not comparable");
  set_disclosure(disclosure, "hardware_price",
                 fmt::format("{} an hour ({})", format_usd(inputs.usd_per_hour), price_basis));
  set_disclosure(disclosure, "utilization", fmt::format("{:.1f}%", 100 * inputs.utilization));
}

std::string cost_table(const CostInputs& inputs, const CostCard& card) {
  Table table({{"", Align::kLeft}, {"", Align::kRight}});
  table.add(
      {"cost per million output tokens", format_usd(card.cost_usd_per_million_output_tokens)});
  if (card.input_tokens_per_hour > 0) {
    table.add(
        {"cost per million input tokens", format_usd(card.cost_usd_per_million_input_tokens)});
  }
  table.add({"sold at, per million output tokens", format_usd(inputs.output_usd_per_million)});
  if (inputs.input_usd_per_million > 0) {
    table.add({"sold at, per million input tokens", format_usd(inputs.input_usd_per_million)});
  }
  table.add({"gross margin", fmt::format("{:.2f}%", 100 * card.gross_margin)});
  table.add({"revenue an hour", format_usd(card.revenue_usd_per_hour)});
  table.add({"profit an hour", format_usd(card.profit_usd_per_hour)});
  table.add({"break-even per million output tokens", format_usd(card.break_even_usd_per_million)});
  table.add(
      {"tokens/s for each $ an hour", fmt::format("{:.1f}", card.tokens_per_second_per_usd_hour)});
  const std::string text = table.text();
  return text.substr(text.find('\n') + 1);  // without the empty header
}

std::string disclosure_text(const Disclosure& disclosure) {
  std::string text = "Under these assumptions:\n";
  size_t width = 0;
  for (const auto& [name, value] : disclosure) width = std::max(width, name.size());
  for (const auto& [name, value] : disclosure) {
    text += fmt::format("  {:<{}}  {}\n", name, width, value);
  }
  return text;
}

nlohmann::ordered_json disclosure_json(const Disclosure& disclosure) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const auto& [name, value] : disclosure) json[name] = value;
  return json;
}

nlohmann::ordered_json cost_json(const CostInputs& inputs,
                                 const CostCard& card,
                                 const Disclosure& disclosure) {
  nlohmann::ordered_json json = {
      {"cost_usd_per_million_output_tokens", card.cost_usd_per_million_output_tokens},
      {"gross_margin", card.gross_margin},
      {"profit_usd_per_hour", card.profit_usd_per_hour},
      {"revenue_usd_per_hour", card.revenue_usd_per_hour},
      {"break_even_usd_per_million", card.break_even_usd_per_million},
      {"tokens_per_second_per_usd_hour", card.tokens_per_second_per_usd_hour},
      {"output_tokens_per_hour", card.output_tokens_per_hour},
      {"output_usd_per_million", inputs.output_usd_per_million},
      {"hardware_usd_per_hour", inputs.usd_per_hour},
      {"utilization", inputs.utilization},
  };
  if (card.input_tokens_per_hour > 0) {
    json["cost_usd_per_million_input_tokens"] = card.cost_usd_per_million_input_tokens;
    json["input_tokens_per_hour"] = card.input_tokens_per_hour;
    json["input_usd_per_million"] = inputs.input_usd_per_million;
  }
  json["disclosure"] = disclosure_json(disclosure);
  return json;
}

}  // namespace quern
