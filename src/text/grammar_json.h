// JSON as expressions of a grammar: values of every kind, written compactly.
//
// One space may stand behind `:` and `,`; there is no other white space. Integers have at most 18
// digits and other numbers at most 16 before and 16 behind the point and an exponent below 100, so
// that every reader can hold them and no answer is digits without end.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "base/result.h"
#include "text/grammar_text.h"

namespace quern {

// A decimal number without an exponent: digits before and behind the point, without zeros that say
// nothing.
struct Decimal {
  bool negative = false;
  std::string whole = "0";
  std::string fraction;
};

// A JSON number as a decimal. Nothing when it needs more than 15 digits.
std::optional<Decimal> decimal_of(const nlohmann::ordered_json& number);

struct DecimalBound {
  Decimal value;
  bool exclusive = false;
};

// Makes the parts of one grammar; what is used often is made once.
class JsonExpressions {
 public:
  explicit JsonExpressions(Expressions& out) : out_(out) {}

  ExpressionId comma();  // `,` and at most one space
  ExpressionId colon();

  // A value that is known: strings as encode_code_point() writes them.
  ExpressionId literal(const nlohmann::ordered_json& value);

  // Any string, with every escape that JSON has; \u escapes of surrogates come in pairs.
  ExpressionId string();

  // Any code points as kJsonString encodes them, control characters without a short escape left
  // out.
  ExpressionId characters(int32_t min, int32_t max);
  ExpressionId quoted(ExpressionId content);

  ExpressionId boolean();
  ExpressionId null() { return out_.literal("null"); }
  ExpressionId integer();
  ExpressionId number();

  // Integers within [min, max]; bounds beyond 18 digits do not bind.
  ExpressionId integer_between(std::optional<int64_t> min, std::optional<int64_t> max);

  // Numbers within the bounds, without an exponent.
  ExpressionId number_between(const std::optional<DecimalBound>& min,
                              const std::optional<DecimalBound>& max);

  // Any value; any object; any array.
  ExpressionId value();
  RuleId object_rule();
  RuleId array_rule();

  // `open` items `close`, items separated by commas.
  ExpressionId enclosed(char open, ListItems items, char close);

 private:
  ExpressionId digit() { return out_.byte_range('0', '9'); }
  ExpressionId scalar();
  ExpressionId digits(int32_t min, int32_t max) { return out_.repeat(digit(), min, max); }
  ExpressionId same_length(std::string_view low, std::string_view high);
  ExpressionId whole_between(const std::string& low, const std::string& high);
  ExpressionId fraction_from(std::string_view bound, bool exclusive, int32_t places);
  ExpressionId fraction_to(std::string_view bound, bool exclusive, int32_t places);
  ExpressionId magnitude_between(const DecimalBound& low, const DecimalBound& high);

  Expressions& out_;
  std::optional<ExpressionId> string_, integer_, number_, comma_, colon_;
  std::optional<RuleId> object_, array_;
};

}  // namespace quern
