#include "text/json_schema_scalar.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include <fmt/format.h>

#include "text/grammar_regex.h"
#include "text/json_schema_keywords.h"

namespace quern {
namespace {

using OrderedJson = nlohmann::ordered_json;

constexpr int32_t kAnyText = -1;  // in place of an expression: no constraint on a string

// 29 February in the years that divide by 4 and not by 100, and in those that divide by 400.
constexpr std::string_view kDate =
    "(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]"
    "|"
    "30)|02-(?:0[1-9]|1[0-9]|2[0-8]))|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|"
    "[2468][048]|[13579][26])00)-02-29)";
constexpr std::string_view kTime =
    "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?"
    "(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])";
constexpr std::string_view kUuid = "[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}";
constexpr std::string_view kByte = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
constexpr std::string_view kEmail =
    "[A-Za-z0-9_+-]+(?:\\.[A-Za-z0-9_+-]+)*@[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    "(?:\\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)+";

// The expression of an enforced format; empty for one that only describes.
std::string format_pattern(std::string_view format) {
  if (format == "date") return fmt::format("^{}$", kDate);
  if (format == "time") return fmt::format("^{}$", kTime);
  if (format == "date-time") return fmt::format("^{}T{}$", kDate, kTime);
  if (format == "uuid") return fmt::format("^{}$", kUuid);
  if (format == "ipv4") return fmt::format("^{0}(?:\\.{0}){{3}}$", kByte);
  if (format == "email") return fmt::format("^{}$", kEmail);
  return {};
}

Result<std::optional<DecimalBound>> bound(const OrderedJson& schema,
                                          const char* inclusive,
                                          const char* exclusive,
                                          const std::string& path) {
  std::optional<DecimalBound> out;
  double chosen = 0;
  for (const char* key : {inclusive, exclusive}) {
    const auto found = schema.find(key);
    if (found == schema.end()) continue;
    if (!found->is_number())
      return schema_error(path, fmt::format("keyword `{}` must be a number", key));
    const std::optional<Decimal> decimal = decimal_of(*found);
    if (!decimal) {
      return schema_error(path, fmt::format("keyword `{}`: {} needs more than 15 decimal digits",
                                            key, found->dump()));
    }
    const auto number = found->get<double>();
    const bool lower = std::string_view(inclusive) == "minimum";
    const bool tighter = !out || number == chosen || (lower ? number > chosen : number < chosen);
    if (!tighter) continue;
    out = DecimalBound{*decimal, key == exclusive};
    chosen = number;
  }
  return out;
}

}  // namespace

Result<ExpressionId> SchemaScalars::pattern(std::string_view text, const std::string& path) {
  const RegexOptions options = {TextEncoding::kJsonString, RegexMatch::kSearch};
  const Result<ExpressionId> parsed = regex_expression(text, options, out_);
  if (!parsed)
    return schema_error(path, fmt::format("keyword `pattern`: {}", parsed.error().message));
  return *parsed;
}

// Strings with equal constraints share a rule: long ones have many states.
Result<ExpressionId> SchemaScalars::string(const OrderedJson& schema, const std::string& path) {
  OrderedJson constraints;
  for (const char* key : {"minLength", "maxLength", "pattern", "format"}) {
    if (schema.contains(key)) constraints[key] = schema.at(key);
  }
  if (constraints.is_null()) return json_.string();
  const auto [known, added] = strings_.emplace(constraints.dump(), 0);
  if (added) {
    const ExpressionId content = QUERN_TRY(string_content(constraints, path));
    known->second = content;
    if (content != kAnyText) {
      known->second = out_.add_rule(path);
      out_.set_rule(known->second, json_.quoted(content));
    }
  }
  return known->second == kAnyText ? json_.string() : out_.call(known->second);
}

// What may stand between the quotes, or kAnyText.
Result<ExpressionId> SchemaScalars::string_content(const OrderedJson& schema,
                                                   const std::string& path) {
  std::vector<ExpressionId> parts;
  if (has_any_keyword(schema, {"minLength", "maxLength"})) {
    const SchemaCounts times = QUERN_TRY(schema_counts(schema, "minLength", "maxLength", path));
    parts.push_back(json_.characters(times.min, times.max));
  }
  if (const auto found = schema.find("pattern"); found != schema.end()) {
    for (const OrderedJson& one : found->is_array() ? *found : OrderedJson::array({*found})) {
      if (!one.is_string()) return schema_error(path, "keyword `pattern` must be a string");
      parts.push_back(QUERN_TRY(pattern(one.get_ref<const std::string&>(), path)));
    }
  }
  if (const auto found = schema.find("format"); found != schema.end()) {
    if (!found->is_string()) return schema_error(path, "keyword `format` must be a string");
    const std::string enforced = format_pattern(found->get_ref<const std::string&>());
    if (!enforced.empty()) parts.push_back(QUERN_TRY(pattern(enforced, path)));
  }
  if (parts.empty()) return kAnyText;
  ExpressionId all = parts[0];
  for (size_t i = 1; i < parts.size(); ++i) all = out_.both(all, parts[i]);
  return all;
}

Result<ExpressionId> SchemaScalars::number(const OrderedJson& schema, const std::string& path) {
  const auto min = QUERN_TRY(bound(schema, "minimum", "exclusiveMinimum", path));
  const auto max = QUERN_TRY(bound(schema, "maximum", "exclusiveMaximum", path));
  return min || max ? json_.number_between(min, max) : json_.number();
}

Result<ExpressionId> SchemaScalars::integer(const OrderedJson& schema, const std::string& path) {
  std::optional<int64_t> least;
  std::optional<int64_t> most;
  for (const char* key : {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"}) {
    const auto found = schema.find(key);
    if (found == schema.end()) continue;
    if (!found->is_number())
      return schema_error(path, fmt::format("keyword `{}` must be a number", key));
    constexpr double kFar = 2e18;  // beyond every integer that is written
    const double number = std::clamp(found->get<double>(), -kFar, kFar);
    const bool exact = found->is_number_integer() && std::abs(number) < kFar;
    const std::string_view name = key;
    const bool exclusive = name.starts_with("exclusive");
    if (name == "minimum" || name == "exclusiveMinimum") {
      int64_t low = exact ? found->get<int64_t>() : static_cast<int64_t>(std::ceil(number));
      if (exclusive && (exact || std::ceil(number) == number)) ++low;
      least = std::max(least.value_or(low), low);
    } else {
      int64_t high = exact ? found->get<int64_t>() : static_cast<int64_t>(std::floor(number));
      if (exclusive && (exact || std::floor(number) == number)) --high;
      most = std::min(most.value_or(high), high);
    }
  }
  return least || most ? json_.integer_between(least, most) : json_.integer();
}

}  // namespace quern
