#include "text/jinja_literals.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "text/jinja_text.h"

namespace quern::jinja {
namespace {

bool is_digit_of(char c, int base) {
  if (c >= '0' && c <= '9') return c - '0' < base;
  const char lower = static_cast<char>(c | 0x20);
  return base == 16 && lower >= 'a' && lower <= 'f';
}

// Digits with single underscores between them, as long as they go.
size_t digits_size(std::string_view text, int base) {
  size_t size = 0;
  while (size < text.size()) {
    const size_t digit = size + (size > 0 && text[size] == '_' ? 1 : 0);
    if (digit >= text.size() || !is_digit_of(text[digit], base)) break;
    size = digit + 1;
  }
  return size;
}

std::string without_underscores(std::string_view text) {
  std::string result(text);
  std::erase(result, '_');
  return result;
}

int base_of(std::string_view text) {
  if (text.size() < 2 || text[0] != '0') return 10;
  switch (text[1] | 0x20) {
    case 'b':
      return 2;
    case 'o':
      return 8;
    case 'x':
      return 16;
    default:
      return 10;
  }
}

// Reads up to `limit` digits; the number of digits read goes to `read`.
uint32_t read_digits(std::string_view text, int base, size_t limit, size_t& read) {
  uint32_t value = 0;
  for (read = 0; read < limit && read < text.size() && is_digit_of(text[read], base); ++read) {
    const char c = text[read];
    const int digit = c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10;
    value = value * static_cast<uint32_t>(base) + static_cast<uint32_t>(digit);
  }
  return value;
}

// One escape, `text` starting behind the backslash. Returns the bytes used, 0 when it is malformed.
size_t unescape_one(std::string_view text, std::string& out) {
  static constexpr std::string_view kNames = "abfnrtv\\'\"";
  static constexpr std::string_view kMeanings = "\a\b\f\n\r\t\v\\'\"";
  const char c = text[0];
  if (c == '\n') return 1;
  if (const size_t named = kNames.find(c); named != std::string_view::npos) {
    out.push_back(kMeanings[named]);
    return 1;
  }
  size_t read = 0;
  if (is_digit_of(c, 8)) {
    append_utf8(out, read_digits(text, 8, 3, read));
    return read;
  }
  if (c == 'x' || c == 'u' || c == 'U') {
    const size_t wanted = c == 'x' ? 2 : c == 'u' ? 4 : 8;
    const uint32_t code_point = read_digits(text.substr(1), 16, wanted, read);
    const bool surrogate = code_point >= 0xd800 && code_point < 0xe000;
    if (read != wanted || code_point > 0x10ffff || surrogate) return 0;
    append_utf8(out, code_point);
    return 1 + read;
  }
  if (c == 'N') return 0;
  out.push_back('\\');  // Python keeps what it does not know
  out.push_back(c);
  return 1;
}

}  // namespace

size_t float_literal_size(std::string_view text) {
  const size_t whole = digits_size(text, 10);
  if (whole == 0) return 0;
  size_t size = whole;
  if (size < text.size() && text[size] == '.') {
    const size_t fraction = digits_size(text.substr(size + 1), 10);
    if (fraction > 0) size += 1 + fraction;
  }
  size_t exponent = size;
  if (exponent < text.size() && (text[exponent] == 'e' || text[exponent] == 'E')) {
    ++exponent;
    if (exponent < text.size() && (text[exponent] == '+' || text[exponent] == '-')) ++exponent;
    const size_t digits = digits_size(text.substr(exponent), 10);
    if (digits > 0) return exponent + digits;
  }
  return size > whole ? size : 0;
}

size_t integer_literal_size(std::string_view text) {
  const int base = base_of(text);
  if (base != 10) {
    const std::string_view digits = text.substr(2);
    const size_t underscore = digits.starts_with('_') ? 1 : 0;
    const size_t size = digits_size(digits.substr(underscore), base);
    if (size > 0) return 2 + underscore + size;
  }
  size_t size = digits_size(text, 10);
  if (text.starts_with('0')) {  // zeros alone: Python has no decimal with a leading zero
    size = std::min(size, text.find_first_not_of("0_"));
    while (size > 1 && text[size - 1] == '_') --size;
  }
  return size;
}

double parse_float_literal(std::string_view literal) {
  const std::string digits = without_underscores(literal);
  double value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error == std::errc()) return value;
  // Out of range: whether too large or too small shows in the sign of the exponent.
  return digits.find("e-") == std::string::npos && digits.find("E-") == std::string::npos ? HUGE_VAL
                                                                                          : 0.0;
}

std::optional<int64_t> parse_integer_literal(std::string_view literal) {
  const int base = base_of(literal);
  const std::string digits = without_underscores(base == 10 ? literal : literal.substr(2));
  int64_t value = 0;
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
  if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  return value;
}

std::string_view unescape_string_literal(std::string_view literal, std::string& out) {
  for (size_t i = 0; i < literal.size();) {
    if (literal[i] != '\\') {
      out.push_back(literal[i++]);
      continue;
    }
    const size_t used = unescape_one(literal.substr(i + 1), out);
    if (used == 0) return "the string has a malformed or unsupported escape";
    i += 1 + used;
  }
  return {};
}

}  // namespace quern::jinja
