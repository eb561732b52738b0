#include "text/jinja_percent.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <optional>

#include <fmt/format.h>

#include "text/jinja_operators.h"
#include "text/jinja_repr.h"
#include "text/jinja_text.h"

namespace quern::jinja {
namespace {

// One conversion, common to both ways.
struct Spec {
  std::string fill = " ";
  char align = 0;  // < > ^ or 0 for the default of the type
  char sign = 0;   // + or space
  bool alternate = false;
  bool zero = false;
  bool comma = false;
  int64_t width = 0;
  std::optional<int64_t> precision;
  char type = 0;
};

Error format_error(const std::string& what) { return template_error("format: " + what); }

// Reads digits of `text` from `at`. Errors: more than kMaxFormatWidth.
Result<int64_t> read_number(std::string_view text, size_t& at) {
  int64_t value = 0;
  for (; at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at) {
    value = value * 10 + (text[at] - '0');
    if (value > kMaxFormatWidth) {
      return format_error(fmt::format("a width is larger than {}", kMaxFormatWidth));
    }
  }
  return value;
}

std::string grouped(const std::string& digits) {
  std::string result;
  const size_t whole = std::min(digits.find_first_not_of("0123456789"), digits.size());
  for (size_t i = 0; i < whole; ++i) {
    if (i > 0 && (whole - i) % 3 == 0) result.push_back(',');
    result.push_back(digits[i]);
  }
  return result + digits.substr(whole);
}

std::string integer_digits(uint64_t magnitude, const Spec& spec) {
  const std::string_view prefix = spec.alternate ? std::string_view("0") : std::string_view();
  switch (spec.type) {
    case 'x':
      return fmt::format("{}{:x}", prefix.empty() ? "" : "0x", magnitude);
    case 'X':
      return fmt::format("{}{:X}", prefix.empty() ? "" : "0X", magnitude);
    case 'o':
      return fmt::format("{}{:o}", prefix.empty() ? "" : "0o", magnitude);
    case 'b':
      return fmt::format("{}{:b}", prefix.empty() ? "" : "0b", magnitude);
    default:
      return std::to_string(magnitude);
  }
}

std::string real_digits(double magnitude, const Spec& spec) {
  if (std::isnan(magnitude)) return "nan";
  if (std::isinf(magnitude)) return "inf";
  if (spec.type == 0 && !spec.precision) return float_repr(magnitude);
  const char type = spec.type == 0 ? 'g' : spec.type == '%' ? 'f' : spec.type;
  const char pattern[] = {'%', '.', '*', type, 0};
  char buffer[kMaxFormatWidth + 400];  // 309 digits before the point
  const int precision = static_cast<int>(spec.precision.value_or(6));
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
  const int size = std::snprintf(buffer, sizeof(buffer), pattern, precision, magnitude);
#pragma GCC diagnostic pop
  return std::string(buffer, static_cast<size_t>(size)) + (spec.type == '%' ? "%" : "");
}

void pad(
    TextBuilder& out, const Spec& spec, const Value& body, std::string_view sign, bool number) {
  const Str& text = *body.string;
  const auto size = static_cast<int64_t>(text.length) + static_cast<int64_t>(sign.size());
  const int64_t missing = std::max<int64_t>(spec.width - size, 0);
  char align = spec.align;
  if (align == 0) align = number ? (spec.zero ? '=' : '>') : '<';
  const int64_t left = align == '>' ? missing : align == '^' ? missing / 2 : 0;
  const int64_t inner = align == '=' ? missing : 0;
  out.append_repeated(spec.fill, left);
  out.append(sign);
  out.append_repeated(spec.zero ? "0" : spec.fill, inner);
  out.append(text);
  out.append_repeated(spec.fill, missing - left - inner);
}

Result<Unit> append_number(Runtime& runtime,
                           TextBuilder& out,
                           const Spec& spec,
                           const Value& value) {
  const bool real = std::string_view("fFeEgG%").find(spec.type) != std::string_view::npos ||
                    (spec.type == 0 && value.is(Kind::kFloat));
  bool minus = false;
  std::string digits;
  if (real) {
    double number = value.as_real() * (spec.type == '%' ? 100 : 1);
    minus = std::signbit(number) && !std::isnan(number);
    digits = real_digits(std::fabs(number), spec);
  } else {
    const int64_t number = value.as_integer();
    minus = number < 0;
    digits = integer_digits(
        minus ? 0 - static_cast<uint64_t>(number) : static_cast<uint64_t>(number), spec);
  }
  if (spec.comma) digits = grouped(digits);
  const std::string_view sign = minus ? "-" : spec.sign == '+' ? "+" : spec.sign == ' ' ? " " : "";
  pad(out, spec, QUERN_TRY(runtime.text(digits)), sign, true);
  return Unit{};
}

Result<Unit> append_words(Runtime& runtime, TextBuilder& out, const Spec& spec, Value text) {
  if (spec.precision && *spec.precision < text.string->length) {
    text = slice_bytes(runtime, *text.string, 0, byte_offset(*text.string, *spec.precision));
  }
  pad(out, spec, text, "", false);
  return Unit{};
}

Result<Value> repr_text(Runtime& runtime, const Value& value) {
  TextBuilder out(runtime);
  QUERN_TRY(append_repr(runtime, out, value));
  return out.finish();
}

// The values on the right of %: a tuple's elements one by one, or a single one, or a dict by name.
class PercentValues {
 public:
  explicit PercentValues(const Value& values) : values_(values) {}

  Result<Value> next() {
    if (values_.is(Kind::kTuple)) {
      const auto items = values_.sequence->items;
      if (used_ < items.size()) return items[used_++];
    } else if (used_ == 0) {
      ++used_;
      return values_;
    }
    return format_error("there are fewer values than conversions");
  }

  Result<Value> named(const Str& name) {
    if (!values_.is(Kind::kDict)) return format_error("%(name) needs a mapping");
    used_ = 1;
    const Value* found = find_key(*values_.dict, name.bytes);
    if (found == nullptr) return format_error(fmt::format("no value is named '{}'", name.bytes));
    return *found;
  }

  Result<Unit> finish() const {
    const bool all = values_.is(Kind::kTuple) ? used_ == values_.sequence->items.size()
                                              : used_ > 0 || !unused_matters();
    if (all) return Unit{};
    return format_error("there are more values than conversions");
  }

 private:
  bool unused_matters() const {
    return !values_.is(Kind::kDict) && !values_.is(Kind::kList) && !values_.is(Kind::kUndefined) &&
           !values_.is(Kind::kRange);
  }

  const Value& values_;
  size_t used_ = 0;
};

Result<Unit> percent_flags(std::string_view text, size_t& at, Spec& spec, PercentValues& values) {
  for (; at < text.size(); ++at) {
    const char c = text[at];
    if (c == '-') {
      spec.align = '<';
    } else if (c == '+') {
      spec.sign = '+';
    } else if (c == ' ') {
      spec.sign = spec.sign == '+' ? '+' : ' ';
    } else if (c == '#') {
      spec.alternate = true;
    } else if (c == '0') {
      spec.zero = true;
    } else {
      break;
    }
  }
  if (at < text.size() && text[at] == '*') {
    ++at;
    const Value width = QUERN_TRY(values.next());
    if (!width.is(Kind::kInt) ||
        std::abs(width.integer % (kMaxFormatWidth + 1)) != std::abs(width.integer)) {
      return format_error("* needs an integer of moderate size");
    }
    if (width.integer < 0) spec.align = '<';
    spec.width = std::abs(width.integer);
  } else {
    spec.width = QUERN_TRY(read_number(text, at));
  }
  if (at < text.size() && text[at] == '.') spec.precision = QUERN_TRY(read_number(text, ++at));
  while (at < text.size() && (text[at] == 'l' || text[at] == 'h' || text[at] == 'L')) ++at;
  return Unit{};
}

Result<Unit> percent_convert(Runtime& runtime, TextBuilder& out, Spec spec, const Value& value) {
  const bool words = std::string_view("sarc").find(spec.type) != std::string_view::npos;
  if (words && spec.align == 0) spec.align = '>';  // where format() would put them to the left
  switch (spec.type) {
    case 's':
      return append_words(runtime, out, spec, QUERN_TRY(to_str(runtime, value)));
    case 'r':
    case 'a':
      return append_words(runtime, out, spec, QUERN_TRY(repr_text(runtime, value)));
    case 'd':
    case 'i':
    case 'u':
      if (value.is(Kind::kFloat) && std::fabs(value.real) < 0x1p63) {
        spec.type = 'd';
        return append_number(runtime, out, spec, Value::from(static_cast<int64_t>(value.real)));
      }
      [[fallthrough]];
    case 'x':
    case 'X':
    case 'o':
      if (!value.is_integer()) return format_error("the conversion needs a number");
      return append_number(runtime, out, spec, value);
    case 'f':
    case 'F':
    case 'e':
    case 'E':
    case 'g':
    case 'G':
      if (!value.is_number()) return format_error("the conversion needs a number");
      return append_number(runtime, out, spec, value);
    case 'c':
      if (!value.is(Kind::kString) || value.string->length != 1) {
        return format_error("%c needs one character");
      }
      return append_words(runtime, out, spec, value);
    default:
      return format_error(fmt::format("unsupported conversion '{}'", spec.type));
  }
}

}  // namespace

Result<Value> percent_format(Runtime& runtime, const Str& format, const Value& values) {
  QUERN_TRY(runtime.read(format.bytes.size()));
  const std::string_view text = format.bytes;
  PercentValues source(values);
  TextBuilder out(runtime);
  for (size_t at = 0; at < text.size();) {
    const size_t percent = std::min(text.find('%', at), text.size());
    out.append(format, at, percent);
    at = percent + 1;
    if (percent == text.size()) break;
    QUERN_TRY(runtime.step());
    Spec spec;
    std::optional<Value> value;
    if (at < text.size() && text[at] == '(') {
      const size_t close = text.find(')', at);
      if (close == std::string_view::npos) return format_error("%( has no )");
      value = QUERN_TRY(source.named(Str{text.substr(at + 1, close - at - 1), {}, 0}));
      at = close + 1;
    }
    QUERN_TRY(percent_flags(text, at, spec, source));
    if (at >= text.size()) return format_error("the conversion is incomplete");
    spec.type = text[at++];
    if (spec.type == '%') {
      out.append("%");
      continue;
    }
    if (!value) value = QUERN_TRY(source.next());
    QUERN_TRY(percent_convert(runtime, out, spec, *value));
  }
  QUERN_TRY(source.finish());
  return out.finish();
}

namespace {

Result<Spec> parse_brace_spec(std::string_view text) {
  static constexpr std::string_view kAligns = "<>^=";
  Spec spec;
  size_t at = 0;
  size_t second = 0;
  if (!text.empty()) next_code_point(text, second);
  if (second > 0 && second < text.size() && kAligns.find(text[second]) != std::string_view::npos) {
    spec.fill = text.substr(0, second);
    spec.align = text[second];
    at = second + 1;
  } else if (!text.empty() && kAligns.find(text[0]) != std::string_view::npos) {
    spec.align = text[at++];
  }
  if (at < text.size() && (text[at] == '+' || text[at] == ' ' || text[at] == '-')) {
    spec.sign = text[at++];
  }
  if (at < text.size() && text[at] == '#') {
    spec.alternate = true;
    ++at;
  }
  if (at < text.size() && text[at] == '0' && spec.align == 0) spec.zero = true;
  spec.width = QUERN_TRY(read_number(text, at));
  if (at < text.size() && text[at] == ',') {
    spec.comma = true;
    ++at;
  }
  if (at < text.size() && text[at] == '.') spec.precision = QUERN_TRY(read_number(text, ++at));
  if (at < text.size()) spec.type = text[at++];
  static constexpr std::string_view kTypes = "sdxXobfFeEgG%";
  const bool known = spec.type == 0 || kTypes.find(spec.type) != std::string_view::npos;
  if (at != text.size() || !known) {
    return format_error(fmt::format("unsupported format '{}'", text));
  }
  return spec;
}

Result<Unit> brace_convert(Runtime& runtime,
                           TextBuilder& out,
                           const Spec& spec,
                           const Value& value) {
  if (value.is_number() && !(value.is(Kind::kBool) && spec.type == 0)) {
    const bool integral =
        spec.type != 0 && std::string_view("dxXob").find(spec.type) != std::string_view::npos;
    if (spec.type == 's' || (integral && value.is(Kind::kFloat))) {
      return format_error("the format does not fit a number");
    }
    return append_number(runtime, out, spec, value);
  }
  if (spec.type != 0 && spec.type != 's') return format_error("the format needs a number");
  return append_words(runtime, out, spec, QUERN_TRY(to_str(runtime, value)));
}

// The arguments of str.format by position or name.
class BraceValues {
 public:
  explicit BraceValues(const Call& call) : call_(call) {}

  Result<Value> find(std::string_view field) {
    if (field.empty()) return at(next_++);
    if (field.find_first_not_of("0123456789") == std::string_view::npos) {
      size_t read = 0;
      return at(static_cast<size_t>(QUERN_TRY(read_number(field, read))));
    }
    for (const NamedValue& argument : call_.named) {
      if (argument.name == field) return argument.value;
    }
    return format_error(fmt::format("no argument is named '{}'", field));
  }

 private:
  Result<Value> at(size_t index) const {
    if (index < call_.args.size()) return call_.args[index];
    return format_error(fmt::format("there is no argument {}", index));
  }

  const Call& call_;
  size_t next_ = 0;
};

Result<Unit> brace_field(Runtime& runtime,
                         TextBuilder& out,
                         BraceValues& values,
                         std::string_view field) {
  const size_t colon = std::min(field.find(':'), field.size());
  std::string_view name = field.substr(0, colon);
  char conversion = 0;
  if (const size_t bang = name.find('!'); bang != std::string_view::npos) {
    if (bang + 2 != name.size()) return format_error("! needs one of s, r");
    conversion = name[bang + 1];
    name = name.substr(0, bang);
  }
  Value value = QUERN_TRY(values.find(name));
  if (conversion == 's') value = QUERN_TRY(to_str(runtime, value));
  if (conversion == 'r') value = QUERN_TRY(repr_text(runtime, value));
  if (conversion != 0 && conversion != 's' && conversion != 'r') {
    return format_error("! needs one of s, r");
  }
  const std::string_view spec = colon < field.size() ? field.substr(colon + 1) : std::string_view();
  return brace_convert(runtime, out, QUERN_TRY(parse_brace_spec(spec)), value);
}

}  // namespace

Result<Value> brace_format(Runtime& runtime, const Str& format, const Call& call) {
  QUERN_TRY(runtime.read(format.bytes.size()));
  const std::string_view text = format.bytes;
  BraceValues values(call);
  TextBuilder out(runtime);
  for (size_t at = 0; at < text.size();) {
    const size_t brace = std::min(text.find_first_of("{}", at), text.size());
    out.append(format, at, brace);
    if (brace == text.size()) break;
    QUERN_TRY(runtime.step());
    at = brace + 1;
    if (at < text.size() && text[at] == text[brace]) {
      out.append(format, at, at + 1);
      ++at;
      continue;
    }
    const size_t close = text.find_first_of("{}", at);
    if (text[brace] == '}' || close == std::string_view::npos || text[close] == '{') {
      return format_error("a brace has no partner");
    }
    QUERN_TRY(brace_field(runtime, out, values, text.substr(at, close - at)));
    at = close + 1;
  }
  return out.finish();
}

}  // namespace quern::jinja
