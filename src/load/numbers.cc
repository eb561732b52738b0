#include "load/numbers.h"

#include <charconv>
#include <cmath>

namespace quern {

std::optional<double> read_number(const std::string& text) {
  double number = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || stop != end || !std::isfinite(number)) return std::nullopt;
  return number;
}

std::optional<double> read_duration_ms(const std::string& text) {
  const size_t digits = text.find_first_not_of("0123456789.");
  if (digits == std::string::npos) return std::nullopt;
  const std::optional<double> number = read_number(text.substr(0, digits));
  if (!number) return std::nullopt;
  const std::string unit = text.substr(digits);
  if (unit == "ms") return *number;
  if (unit == "s") return *number * 1e3;
  if (unit == "us") return *number * 1e-3;
  return std::nullopt;
}

}  // namespace quern
