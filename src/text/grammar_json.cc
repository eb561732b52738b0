#include "text/grammar_json.h"

#include <algorithm>
#include <string>

#include "text/unicode.h"

namespace quern {
namespace {

using OrderedJson = nlohmann::ordered_json;

constexpr int32_t kIntegerDigits = 18;  // below 2^63
constexpr int32_t kNumberDigits = 16;   // as many as a double tells apart
constexpr size_t kBoundDigits = 15;     // every double has them exactly
constexpr int64_t kIntegerLimit = 1'000'000'000'000'000'000;

std::string dumped(const OrderedJson& value) {
  return value.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

std::string without_leading_zeros(const std::string& digits) {
  const size_t first = digits.find_first_not_of('0');
  return first == std::string::npos ? "0" : digits.substr(first);
}

// As numbers: both without leading zeros.
bool less(const std::string& a, const std::string& b) {
  return a.size() != b.size() ? a.size() < b.size() : a < b;
}

std::string plus_one(std::string digits) {
  for (size_t i = digits.size(); i-- > 0;) {
    if (digits[i] != '9') {
      ++digits[i];
      return digits;
    }
    digits[i] = '0';
  }
  return "1" + digits;
}

std::string minus_one(std::string digits) {  // not of "0"
  for (size_t i = digits.size(); i-- > 0;) {
    if (digits[i] != '0') {
      --digits[i];
      break;
    }
    digits[i] = '9';
  }
  return without_leading_zeros(digits);
}

}  // namespace

std::optional<Decimal> decimal_of(const OrderedJson& number) {
  std::string text = dumped(number);
  Decimal out;
  if (text.starts_with('-')) {
    out.negative = true;
    text.erase(0, 1);
  }
  int exponent = 0;
  if (const size_t e = text.find('e'); e != std::string::npos) {
    exponent = std::stoi(text.substr(e + 1));  // at most three digits: written by dump()
    text.resize(e);
  }
  const size_t point = text.find('.');
  std::string digits = text.substr(0, point);
  auto places = static_cast<int>(digits.size()) + exponent;  // digits before the point
  if (point != std::string::npos) digits += text.substr(point + 1);
  if (std::abs(places) > static_cast<int>(kBoundDigits)) return std::nullopt;
  if (places < 0) {
    digits.insert(0, static_cast<size_t>(-places), '0');
    places = 0;
  }
  const auto whole = static_cast<size_t>(places);
  if (digits.size() < whole) digits.append(whole - digits.size(), '0');
  out.whole = without_leading_zeros(digits.substr(0, whole));
  out.fraction = digits.substr(whole);
  while (out.fraction.ends_with('0')) out.fraction.pop_back();
  if (out.whole.size() + out.fraction.size() > kBoundDigits) return std::nullopt;
  if (out.whole == "0" && out.fraction.empty()) out.negative = false;
  return out;
}

ExpressionId JsonExpressions::comma() {
  if (!comma_) comma_ = out_.sequence({out_.literal(","), out_.optional(out_.literal(" "))});
  return *comma_;
}

ExpressionId JsonExpressions::colon() {
  if (!colon_) colon_ = out_.sequence({out_.literal(":"), out_.optional(out_.literal(" "))});
  return *colon_;
}

ExpressionId JsonExpressions::enclosed(char open, ListItems items, char close) {
  items.separator = comma();
  return out_.sequence({out_.literal(std::string_view(&open, 1)), out_.list(std::move(items)),
                        out_.literal(std::string_view(&close, 1))});
}

ExpressionId JsonExpressions::literal(const OrderedJson& value) {
  if (value.is_object()) {
    ListItems items;
    for (const auto& [key, member] : value.items()) {
      items.items.push_back(
          out_.sequence({out_.literal(dumped(OrderedJson(key))), colon(), literal(member)}));
    }
    items.required.assign(items.items.size(), true);
    return enclosed('{', std::move(items), '}');
  }
  if (value.is_array()) {
    ListItems items;
    for (const OrderedJson& element : value) items.items.push_back(literal(element));
    items.required.assign(items.items.size(), true);
    return enclosed('[', std::move(items), ']');
  }
  return out_.literal(dumped(value));
}

ExpressionId JsonExpressions::quoted(ExpressionId content) {
  return out_.sequence({out_.literal("\""), content, out_.literal("\"")});
}

ExpressionId JsonExpressions::characters(int32_t min, int32_t max) {
  // Of the characters that need an escape only those with a short one: others are of no use and
  // would double the states of a long bounded string.
  CodePointSet set;
  set.add(0x20, 0x10FFFF);
  for (const char32_t c : {U'\b', U'\f', U'\n', U'\r', U'\t'}) set.add(c);
  return out_.repeat(encode_set(set, TextEncoding::kJsonString, out_), min, max);
}

ExpressionId JsonExpressions::string() {
  if (string_) return *string_;
  CodePointSet raw;
  raw.add(0x20, 0x21);
  raw.add(0x23, 0x5B);
  raw.add(0x5D, 0x10FFFF);
  const auto set = [&](std::string_view bytes) { return out_.any_of_bytes(bytes); };
  const ExpressionId hex = set("0123456789abcdefABCDEF");
  const ExpressionId d = set("dD");
  const ExpressionId low = out_.sequence({out_.literal("\\u"), d, set("cdefCDEF"), hex, hex});
  const ExpressionId unit = out_.choice({
      out_.sequence({set("0123456789abcefABCEF"), hex, hex, hex}),
      out_.sequence({d, set("01234567"), hex, hex}),
      out_.sequence({d, set("89abAB"), hex, hex, low}),
  });
  const ExpressionId escape =
      out_.sequence({out_.literal("\\"),
                     out_.choice({set("\"\\/bfnrt"), out_.sequence({out_.literal("u"), unit})})});
  const ExpressionId character = out_.choice({encode_set(raw, TextEncoding::kPlain, out_), escape});
  string_ = quoted(out_.repeat(character, 0, kUnbounded));
  return *string_;
}

ExpressionId JsonExpressions::boolean() {
  return out_.choice({out_.literal("true"), out_.literal("false")});
}

ExpressionId JsonExpressions::integer() {
  if (!integer_) {
    const ExpressionId digits_of =
        out_.choice({out_.literal("0"),
                     out_.sequence({out_.byte_range('1', '9'), digits(0, kIntegerDigits - 1)})});
    integer_ = out_.sequence({out_.optional(out_.literal("-")), digits_of});
  }
  return *integer_;
}

ExpressionId JsonExpressions::number() {
  if (!number_) {
    const ExpressionId whole =
        out_.choice({out_.literal("0"),
                     out_.sequence({out_.byte_range('1', '9'), digits(0, kNumberDigits - 1)})});
    const ExpressionId fraction = out_.sequence({out_.literal("."), digits(1, kNumberDigits)});
    const ExpressionId exponent = out_.sequence(
        {out_.any_of_bytes("eE"), out_.optional(out_.any_of_bytes("+-")), digits(1, 2)});
    number_ = out_.sequence({out_.optional(out_.literal("-")), whole, out_.optional(fraction),
                             out_.optional(exponent)});
  }
  return *number_;
}

// Digit strings of one length between two such strings, both included.
ExpressionId JsonExpressions::same_length(std::string_view low, std::string_view high) {
  if (low.empty()) return out_.empty();
  const auto rest = static_cast<int32_t>(low.size() - 1);
  const bool all =
      low.find_first_not_of('0') == low.npos && high.find_first_not_of('9') == high.npos;
  if (all) return digits(rest + 1, rest + 1);
  const auto with = [&](char first, ExpressionId tail) {
    return out_.sequence({out_.literal(std::string_view(&first, 1)), tail});
  };
  if (low[0] == high[0]) return with(low[0], same_length(low.substr(1), high.substr(1)));
  const std::string nines(low.size() - 1, '9');
  const std::string zeros(low.size() - 1, '0');
  std::vector<ExpressionId> branches = {with(low[0], same_length(low.substr(1), nines)),
                                        with(high[0], same_length(zeros, high.substr(1)))};
  if (low[0] + 1 < high[0]) {
    branches.push_back(out_.sequence(
        {out_.byte_range(static_cast<uint8_t>(low[0] + 1), static_cast<uint8_t>(high[0] - 1)),
         digits(rest, rest)}));
  }
  return out_.choice(std::move(branches));
}

// Whole numbers from `low` to `high`, both included and without leading zeros.
ExpressionId JsonExpressions::whole_between(const std::string& low, const std::string& high) {
  std::vector<ExpressionId> branches;
  for (size_t length = low.size(); length <= high.size() && !less(high, low); ++length) {
    const std::string least = length == low.size() ? low : "1" + std::string(length - 1, '0');
    const std::string most = length == high.size() ? high : std::string(length, '9');
    branches.push_back(same_length(least, most));
  }
  return out_.choice(std::move(branches));
}

ExpressionId JsonExpressions::integer_between(std::optional<int64_t> min,
                                              std::optional<int64_t> max) {
  const int64_t low = std::max(min.value_or(-kIntegerLimit), 1 - kIntegerLimit);
  const int64_t high = std::min(max.value_or(kIntegerLimit), kIntegerLimit - 1);
  if (low > high) return out_.nothing();
  std::vector<ExpressionId> branches;
  if (high >= 0) {
    branches.push_back(
        whole_between(std::to_string(std::max<int64_t>(low, 0)), std::to_string(high)));
  }
  if (low < 0) {
    const std::string least = std::to_string(-std::min<int64_t>(high, -1));
    branches.push_back(
        out_.sequence({out_.literal("-"), whole_between(least, std::to_string(-low))}));
  }
  return out_.choice(std::move(branches));
}

// What may follow a whole number for a fraction of at least 0.`bound`, the point included, with at
// most `places` digits or as many as the bound has.
ExpressionId JsonExpressions::fraction_from(std::string_view bound,
                                            bool exclusive,
                                            int32_t places) {
  const int32_t more = std::max(0, places - static_cast<int32_t>(bound.size()));
  const ExpressionId rest = digits(0, more);
  const ExpressionId positive =
      more == 0 ? out_.nothing()
                : out_.sequence({out_.repeat(out_.literal("0"), 0, more - 1),
                                 out_.byte_range('1', '9'), digits(0, more - 1)});
  const ExpressionId point = out_.literal(".");
  if (bound.empty()) {
    if (exclusive) return out_.sequence({point, positive});
    return more == 0 ? out_.empty() : out_.optional(out_.sequence({point, digits(1, more)}));
  }
  ExpressionId tail = exclusive ? positive : rest;
  for (size_t i = bound.size(); i-- > 0;) {
    const char d = bound[i];
    const ExpressionId equal = out_.sequence({out_.literal(std::string_view(&d, 1)), tail});
    const ExpressionId above =
        d == '9' ? out_.nothing()
                 : out_.sequence({out_.byte_range(static_cast<uint8_t>(d + 1), '9'), rest});
    tail = out_.choice({equal, above});
  }
  return out_.sequence({point, tail});
}

// As above, of at most 0.`bound`.
ExpressionId JsonExpressions::fraction_to(std::string_view bound, bool exclusive, int32_t places) {
  const int32_t more = std::max(0, places - static_cast<int32_t>(bound.size()));
  const ExpressionId rest = digits(0, more);
  const ExpressionId point = out_.literal(".");
  if (bound.empty()) {
    if (exclusive) return out_.nothing();
    return out_.optional(out_.sequence({point, out_.repeat(out_.literal("0"), 1, 1 + more)}));
  }
  ExpressionId tail = exclusive ? out_.nothing() : out_.repeat(out_.literal("0"), 0, more);
  for (size_t i = bound.size(); i-- > 0;) {
    const char d = bound[i];
    std::vector<ExpressionId> branches = {
        out_.sequence({out_.literal(std::string_view(&d, 1)), tail})};
    if (d != '0') {
      branches.push_back(out_.sequence({out_.byte_range('0', static_cast<uint8_t>(d - 1)), rest}));
    }
    if (i > 0) branches.push_back(out_.empty());  // ends early: the bound goes on, above zero
    tail = out_.choice(std::move(branches));
  }
  return out_.optional(out_.sequence({point, tail}));
}

// Numbers without a sign between two that are not negative.
ExpressionId JsonExpressions::magnitude_between(const DecimalBound& low, const DecimalBound& high) {
  // With at most 15 digits no text near a bound is rounded onto it or past it.
  const bool unbounded = high.value.whole.size() == kNumberDigits;
  const size_t widest =
      std::max(low.value.whole.size(), unbounded ? size_t{0} : high.value.whole.size());
  const auto places = static_cast<int32_t>(kBoundDigits - widest);
  const ExpressionId from = fraction_from(low.value.fraction, low.exclusive, places);
  const ExpressionId to = fraction_to(high.value.fraction, high.exclusive, places);
  if (low.value.whole == high.value.whole)
    return out_.sequence({out_.literal(low.value.whole), out_.both(from, to)});
  if (less(high.value.whole, low.value.whole)) return out_.nothing();
  const ExpressionId any =
      places == 0 ? out_.empty()
                  : out_.optional(out_.sequence({out_.literal("."), digits(1, places)}));
  const std::string first = plus_one(low.value.whole);
  const std::string last = minus_one(high.value.whole);
  return out_.choice({
      out_.sequence({out_.literal(low.value.whole), from}),
      out_.sequence({whole_between(first, last), any}),
      out_.sequence({out_.literal(high.value.whole), to}),
  });
}

ExpressionId JsonExpressions::number_between(const std::optional<DecimalBound>& min,
                                             const std::optional<DecimalBound>& max) {
  const DecimalBound zero;
  const DecimalBound most = {{false, std::string(kNumberDigits, '9'), ""}, false};
  std::vector<ExpressionId> branches;
  const auto magnitude = [](const std::optional<DecimalBound>& bound) {
    return DecimalBound{{false, bound->value.whole, bound->value.fraction}, bound->exclusive};
  };
  if (!max || !max->value.negative) {
    const bool from_min = min && !min->value.negative;
    branches.push_back(
        magnitude_between(from_min ? magnitude(min) : zero, max ? magnitude(max) : most));
  }
  if (!min || min->value.negative) {
    // "-0" equals 0, so negative texts may not say zero where the most is below it or excludes it.
    DecimalBound least = zero;
    if (max && max->value.negative) least = magnitude(max);
    if (max && !max->value.negative && max->value.whole == "0" && max->value.fraction.empty())
      least.exclusive = max->exclusive;
    branches.push_back(
        out_.sequence({out_.literal("-"), magnitude_between(least, min ? magnitude(min) : most)}));
  }
  return out_.choice(std::move(branches));
}

ExpressionId JsonExpressions::scalar() {
  return out_.choice({string(), number(), boolean(), null()});
}

ExpressionId JsonExpressions::value() {
  return out_.choice({scalar(), out_.call(object_rule()), out_.call(array_rule())});
}

RuleId JsonExpressions::object_rule() {
  if (object_) return *object_;
  object_ = out_.add_rule("any object");
  ListItems members;
  members.extra = out_.sequence({string(), colon(), value()});
  out_.set_rule(*object_, enclosed('{', std::move(members), '}'));
  return *object_;
}

RuleId JsonExpressions::array_rule() {
  if (array_) return *array_;
  array_ = out_.add_rule("any array");
  ListItems elements;
  elements.extra = value();
  out_.set_rule(*array_, enclosed('[', std::move(elements), ']'));
  return *array_;
}

}  // namespace quern
