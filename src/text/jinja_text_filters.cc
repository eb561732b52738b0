#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <optional>

#include <fmt/format.h>

#include "text/jinja_attributes.h"
#include "text/jinja_case.h"
#include "text/jinja_filters.h"
#include "text/jinja_json.h"
#include "text/jinja_methods.h"
#include "text/jinja_operators.h"
#include "text/jinja_percent.h"
#include "text/jinja_repr.h"
#include "text/jinja_text.h"

namespace quern::jinja {
namespace {

template <Result<Value> (*map)(Runtime&, const Str&)>
Result<Value> mapping(Runtime& runtime, const Call& call) {
  QUERN_TRY(call.bind({"s"}, 1));
  return map(runtime, *QUERN_TRY(to_str(runtime, call.args[0])).string);
}

Result<Value> filter_string(Runtime& runtime, const Call& call) {
  QUERN_TRY(call.bind({"value"}, 1));
  return to_str(runtime, call.args[0]);
}

Result<Value> filter_trim(Runtime& runtime, const Call& call) {
  const auto a = QUERN_TRY(call.bind({"value", "chars"}, 1));
  const bool valid = !a[1].given() || a[1].is(Kind::kNone) || a[1].is(Kind::kString);
  if (!valid) return template_error("trim() takes a text");
  return strip(runtime, *QUERN_TRY(to_str(runtime, a[0])).string, a[1], Side::kBoth);
}

Result<Value> filter_replace(Runtime& runtime, const Call& call) {
  const auto a = QUERN_TRY(call.bind({"s", "old", "new", "count"}, 3));
  const Value text = QUERN_TRY(to_str(runtime, a[0]));
  const Value from = QUERN_TRY(to_str(runtime, a[1]));
  const Value to = QUERN_TRY(to_str(runtime, a[2]));
  const int64_t limit = a[3].is(Kind::kNone) ? -1 : QUERN_TRY(integer_argument(call, a[3], -1));
  return replace(runtime, *text.string, *from.string, *to.string, limit);
}

Result<Value> filter_escape(Runtime& runtime, const Call& call) {
  QUERN_TRY(call.bind({"s"}, 1));
  const Value text = QUERN_TRY(to_str(runtime, call.args[0]));
  const std::string_view bytes = text.string->bytes;
  QUERN_TRY(runtime.read(bytes.size()));
  TextBuilder out(runtime);
  size_t plain = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    static constexpr std::string_view kSpecial = "&<>\"'";
    static constexpr std::string_view kEscaped[] = {"&amp;", "&lt;", "&gt;", "&#34;", "&#39;"};
    const size_t found = kSpecial.find(bytes[i]);
    if (found == std::string_view::npos) continue;
    out.append(*text.string, plain, i);
    out.append_for(kEscaped[found], *text.string, i);
    plain = i + 1;
  }
  out.append(*text.string, plain, bytes.size());
  return out.finish();
}

Result<Value> filter_indent(Runtime& runtime, const Call& call) {
  const auto a = QUERN_TRY(call.bind({"s", "width", "first", "blank"}, 1));
  if (!a[0].is(Kind::kString)) {
    return template_error(fmt::format("indent takes a text, not '{}'", type_name(a[0])));
  }
  Value indention = a[1];
  if (!indention.is(Kind::kString)) {
    const int64_t width = QUERN_TRY(integer_argument(call, a[1], 4));
    if (width > kMaxFormatWidth) {
      return template_error(fmt::format("indent(): the width is larger than {}", kMaxFormatWidth));
    }
    indention =
        QUERN_TRY(runtime.text(std::string(static_cast<size_t>(std::max<int64_t>(width, 0)), ' ')));
  }
  const Str& text = *a[0].string;
  std::vector<Value> lines = QUERN_TRY(split_lines(runtime, text));
  const std::string_view bytes = text.bytes;
  if (bytes.empty() || bytes.back() == '\n' || bytes.back() == '\r') {
    lines.push_back(slice_bytes(runtime, text, 0, 0));  // Jinja2 adds a line break before it splits
    if (bytes.ends_with('\r')) lines.pop_back();
  }
  TextBuilder out(runtime);
  if (truthy(a[2])) out.append(*indention.string);
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out.append("\n");
    if (i > 0 && (truthy(a[3]) || truthy(lines[i]))) out.append(*indention.string);
    out.append(*lines[i].string);
  }
  return out.finish();
}

Result<Value> filter_truncate(Runtime& runtime, const Call& call) {
  const auto a = QUERN_TRY(call.bind({"s", "length", "killwords", "end", "leeway"}, 1));
  if (!a[0].is(Kind::kString)) return template_error("truncate takes a text");
  const Str& text = *a[0].string;
  const Str dots{"...", {}, 3};
  const Str& end = a[3].is(Kind::kString) ? *a[3].string : dots;
  const int64_t length = QUERN_TRY(integer_argument(call, a[1], 255));
  const int64_t leeway = a[4].is(Kind::kNone) ? 5 : QUERN_TRY(integer_argument(call, a[4], 5));
  if (length < end.length || leeway < 0) {
    return template_error("truncate(): the length is shorter than what ends the text");
  }
  QUERN_TRY(runtime.read(text.bytes.size()));
  if (leeway > INT64_MAX - length || text.length <= length + leeway) return a[0];
  size_t cut = byte_offset(text, length - end.length);
  if (!truthy(a[2])) {
    const size_t space = text.bytes.substr(0, cut).rfind(' ');
    if (space != std::string_view::npos) cut = space;
  }
  TextBuilder out(runtime);
  out.append(text, 0, cut);
  out.append(end);
  return out.finish();
}

Result<Value> filter_center(Runtime& runtime, const Call& call) {
  const auto a = QUERN_TRY(call.bind({"value", "width"}, 1));
  const Value text = QUERN_TRY(to_str(runtime, a[0]));
  const Value width = a[1].given() ? a[1] : Value::from(int64_t{80});
  const Value both[] = {text, width};
  return find_method(text, "center")->body(runtime, Call{"center", both});
}

Result<Value> filter_format(Runtime& runtime, const Call& call) {
  if (call.args.size() > 1 && !call.named.empty()) {
    return template_error("format takes values by position or by name, not both");
  }
  const Value text = QUERN_TRY(to_str(runtime, call.args[0]));
  if (call.named.empty()) {
    const auto rest = call.args.subspan(1);
    const Value values = QUERN_TRY(runtime.sequence(Kind::kTuple, {rest.begin(), rest.end()}));
    return percent_format(runtime, *text.string, values);
  }
  Dict* names = runtime.heap().make(Dict{});
  for (const NamedValue& argument : call.named) {
    const Value name = QUERN_TRY(runtime.text(argument.name));
    QUERN_TRY(set_key(runtime, *names, name, argument.value));
  }
  return percent_format(runtime, *text.string, Value::from(Kind::kDict, names));
}

Result<Value> filter_wordcount(Runtime& runtime, const Call& call) {
  QUERN_TRY(call.bind({"s"}, 1));
  const Value text = QUERN_TRY(to_str(runtime, call.args[0]));
  const std::string_view bytes = text.string->bytes;
  QUERN_TRY(runtime.step(text.string->length));
  int64_t count = 0;
  bool inside = false;
  for (size_t i = 0; i < bytes.size();) {
    const char32_t c = next_code_point(bytes, i);
    const bool word = c == '_' || is_of(c, CharacterClass::kAlnum);
    count += word && !inside;
    inside = word;
  }
  return Value::from(count);
}

Result<Value> filter_urlencode(Runtime& runtime, const Call& call) {
  QUERN_TRY(call.bind({"value"}, 1));
  if (is_iterable(call.args[0]) && !call.args[0].is(Kind::kString)) {
    return template_error("urlencode of mappings and lists is not supported");
  }
  const Value text = QUERN_TRY(to_str(runtime, call.args[0]));
  const std::string_view bytes = text.string->bytes;
  QUERN_TRY(runtime.step(static_cast<int64_t>(bytes.size())));
  TextBuilder out(runtime);
  for (size_t i = 0; i < bytes.size(); ++i) {
    const char c = bytes[i];
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                       std::string_view("_.-~/").find(c) != std::string_view::npos;
    const std::string encoded =
        plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
    out.append_for(encoded, *text.string, i);
  }
  return out.finish();
}

// White space around and underscores within are fine for int() and float(), as in Python.
std::optional<std::string> numeral(const Str& text) {
  std::string_view bytes = text.bytes;
  while (!bytes.empty() && is_space(static_cast<unsigned char>(bytes.front())))
    bytes.remove_prefix(1);
  while (!bytes.empty() && is_space(static_cast<unsigned char>(bytes.back())))
    bytes.remove_suffix(1);
  std::string digits;
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i] != '_') {
      digits.push_back(bytes[i]);
      continue;
    }
    const auto digit = [&](size_t at) {
      return at < bytes.size() && std::isalnum(static_cast<unsigned char>(bytes[at])) != 0;
    };
    if (i == 0 || !digit(i - 1) || !digit(i + 1)) return std::nullopt;
  }
  if (digits.starts_with('+')) {
    digits.erase(0, 1);
    if (digits.starts_with('-') || digits.starts_with('+')) return std::nullopt;
  }
  return digits;
}

std::optional<double> parse_real(const Str& text) {
  const std::optional<std::string> digits = numeral(text);
  if (!digits || digits->empty()) return std::nullopt;
  double value = 0;
  const char* end = digits->data() + digits->size();
  const auto read = std::from_chars(digits->data(), end, value);
  if (read.ptr != end) return std::nullopt;
  if (read.ec == std::errc::result_out_of_range) {
    const bool tiny =
        digits->find("e-") != std::string::npos || digits->find("E-") != std::string::npos;
    return tiny ? 0.0 : digits->starts_with('-') ? -HUGE_VAL : HUGE_VAL;
  }
  return value;
}

// int(text, base). `too_large` is set when the digits are right but do not fit.
std::optional<int64_t> parse_integer(const Str& text, int64_t base, bool& too_large) {
  const std::optional<std::string> digits = numeral(text);
  if (!digits) return std::nullopt;
  const size_t sign = digits->starts_with('-') ? 1 : 0;
  size_t prefix = 0;
  if (digits->size() > sign + 2 && (*digits)[sign] == '0') {
    const char kind = static_cast<char>((*digits)[sign + 1] | 0x20);
    if ((kind == 'x' && base == 16) || (kind == 'o' && base == 8) || (kind == 'b' && base == 2))
      prefix = 2;
  }
  const std::string plain = digits->substr(0, sign) + digits->substr(sign + prefix);
  int64_t value = 0;
  const char* end = plain.data() + plain.size();
  const auto read = std::from_chars(plain.data(), end, value, static_cast<int>(base));
  if (read.ptr != end || plain.size() == sign) return std::nullopt;
  too_large = read.ec == std::errc::result_out_of_range;
  return value;
}

std::optional<int64_t> truncated(double value, bool& too_large) {
  if (!std::isfinite(value)) return std::nullopt;
  too_large = std::fabs(value) >= 0x1p63;
  return too_large ? 0 : static_cast<int64_t>(value);
}

Result<Value> filter_int(Runtime& runtime, const Call& call) {
  const auto a = QUERN_TRY(call.bind({"value", "default", "base"}, 1));
  const Value fallback = a[1].given() ? a[1] : Value::from(int64_t{0});
  const int64_t base = QUERN_TRY(integer_argument(call, a[2], 10));
  if (base < 2 || base > 36) return template_error("int(): the base must lie between 2 and 36");
  bool too_large = false;
  std::optional<int64_t> value;
  if (a[0].is(Kind::kString)) {
    QUERN_TRY(runtime.read(a[0].string->bytes.size()));
    value = parse_integer(*a[0].string, base, too_large);
    if (!value) {
      const std::optional<double> real = parse_real(*a[0].string);
      if (real) value = truncated(*real, too_large);
    }
  } else if (a[0].is_integer()) {
    value = a[0].as_integer();
  } else if (a[0].is(Kind::kFloat)) {
    if (std::isinf(a[0].real)) return template_error("int(): infinity is no integer");
    value = truncated(a[0].real, too_large);
  } else if (a[0].is(Kind::kUndefined)) {
    return template_error(std::string(a[0].string->bytes));
  }
  if (too_large) return template_error("the integer does not fit 64 bits");
  return value ? Value::from(*value) : fallback;
}

Result<Value> filter_float(Runtime& runtime, const Call& call) {
  const auto a = QUERN_TRY(call.bind({"value", "default"}, 1));
  if (a[0].is_number()) return Value::from(a[0].as_real());
  if (a[0].is(Kind::kUndefined)) return template_error(std::string(a[0].string->bytes));
  if (a[0].is(Kind::kString)) {
    QUERN_TRY(runtime.read(a[0].string->bytes.size()));
    if (const std::optional<double> value = parse_real(*a[0].string)) return Value::from(*value);
  }
  return a[1].given() ? a[1] : Value::from(0.0);
}

Result<Value> filter_abs(Runtime& runtime, const Call& call) {
  QUERN_TRY(call.bind({"x"}, 1));
  const Value& value = call.args[0];
  if (value.is(Kind::kFloat)) return Value::from(std::fabs(value.real));
  const bool below = value.is_integer() && value.as_integer() < 0;
  return negative(runtime, value, below ? UnaryOp::kNegative : UnaryOp::kPositive);
}

// round() half to even on the exact decimal value, which is what printing does.
double rounded(double value, int digits) {
  if (!std::isfinite(value) || digits > 300) return value;
  if (digits < 0) {
    const double power = std::pow(10.0, -digits);
    return std::isfinite(power) ? std::nearbyint(value / power) * power : std::copysign(0.0, value);
  }
  char buffer[700];
  const int size = std::snprintf(buffer, sizeof(buffer), "%.*f", digits, value);
  double result = value;
  std::from_chars(buffer, buffer + size, result);
  return result;
}

Result<Value> filter_round(Runtime& runtime, const Call& call) {
  const auto a = QUERN_TRY(call.bind({"value", "precision", "method"}, 1));
  const int64_t precision =
      std::clamp<int64_t>(QUERN_TRY(integer_argument(call, a[1], 0)), -400, 400);
  const std::string_view method = a[2].is(Kind::kString) ? a[2].string->bytes : "common";
  if (!a[0].is_number()) {
    return template_error(fmt::format("round takes a number, not '{}'", type_name(a[0])));
  }
  if (method == "common") {
    if (a[0].is_integer() && precision >= 0) return Value::from(a[0].as_integer());
    const double value = rounded(a[0].as_real(), static_cast<int>(precision));
    return a[0].is_integer() ? Value::from(static_cast<int64_t>(std::clamp(value, -0x1p62, 0x1p62)))
                             : Value::from(value);
  }
  if (method != "ceil" && method != "floor") {
    return template_error("round(): the method must be common, ceil or floor");
  }
  const Value ten = Value::from(int64_t{10});
  const Value power = QUERN_TRY(binary(runtime, BinaryOp::kPow, ten, Value::from(precision)));
  const double scaled = QUERN_TRY(binary(runtime, BinaryOp::kMul, a[0], power)).as_real();
  const double whole = method == "ceil" ? std::ceil(scaled) : std::floor(scaled);
  if (!std::isfinite(whole)) return template_error("round(): the number is not finite");
  return binary(runtime, BinaryOp::kDiv, Value::from(whole), power);
}

Result<Value> filter_default(Runtime&, const Call& call) {
  const auto a = QUERN_TRY(call.bind({"value", "default_value", "boolean"}, 1));
  static constexpr Str kEmpty{};
  const bool replaced = a[0].is(Kind::kUndefined) || (truthy(a[2]) && !truthy(a[0]));
  if (!replaced) return a[0];
  return a[1].given() ? a[1] : Value::from(&kEmpty);
}

Result<Value> filter_attr(Runtime& runtime, const Call& call) {
  const auto a = QUERN_TRY(call.bind({"obj", "name"}, 2));
  if (!a[1].is(Kind::kString)) return template_error("attr takes the name of an attribute");
  if (a[0].is(Kind::kDict) && find_method(a[0], a[1].string->bytes) == nullptr) {
    return runtime.undefined(a[0], a[1].string->bytes);  // attributes only, no keys
  }
  return get_attribute(runtime, a[0], a[1].string->bytes);
}

constexpr Function kTextFilters[] = {
    {"abs", filter_abs},
    {"attr", filter_attr},
    {"capitalize", mapping<to_capitalized>},
    {"center", filter_center},
    {"d", filter_default},
    {"default", filter_default},
    {"e", filter_escape},
    {"escape", filter_escape},
    {"float", filter_float},
    {"forceescape", filter_escape},
    {"format", filter_format},
    {"indent", filter_indent},
    {"int", filter_int},
    {"lower", mapping<to_lower>},
    {"replace", filter_replace},
    {"round", filter_round},
    {"safe", filter_string},
    {"string", filter_string},
    {"title", mapping<to_headline>},
    {"tojson", filter_tojson},
    {"trim", filter_trim},
    {"truncate", filter_truncate},
    {"upper", mapping<to_upper>},
    {"urlencode", filter_urlencode},
    {"wordcount", filter_wordcount},
};

}  // namespace

std::span<const Function> text_filters() { return kTextFilters; }

}  // namespace quern::jinja
