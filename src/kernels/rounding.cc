#include "kernels/rounding.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

namespace quern {
namespace {

constexpr int kHighestExponent = 15;   // magnitudes below 2^15 cannot round to infinity
constexpr int kLowestExponent = -120;  // 2^kLowestExponent is a normal float32

// Whether f16 holds `scale` with its full 11 bits or exactly.
bool fits_f16(float scale) {
  const float rounded = f16_to_f32(f32_to_f16(scale));
  if (rounded == scale) return true;
  return std::isfinite(rounded) && std::fabs(scale) >= 0x1p-14f;
}

}  // namespace

float RoundedScales::unit() const { return std::ldexp(1.0f, exponent); }

RoundedScales round_scales(std::span<const float> scales) {
  RoundedScales rounded;
  if (!std::all_of(scales.begin(), scales.end(), fits_f16)) {
    float largest = 0;
    for (const float scale : scales) largest = std::max(largest, std::fabs(scale));
    int exponent = 0;
    std::frexp(largest, &exponent);  // largest < 2^exponent
    rounded.exponent = std::max(exponent - kHighestExponent, kLowestExponent);
  }
  rounded.halves.reserve(scales.size());
  for (const float scale : scales) {
    uint16_t half = f32_to_f16(std::ldexp(scale, -rounded.exponent));
    // Within 2^-12 of the largest float32, rounding up would leave its range.
    if (!std::isfinite(std::ldexp(f16_to_f32(half), rounded.exponent))) --half;
    rounded.halves.push_back(half);
    const double value = std::ldexp(static_cast<double>(f16_to_f32(half)), rounded.exponent);
    if (value == static_cast<double>(scale)) continue;
    const double error = std::fabs(value / static_cast<double>(scale) - 1.0);
    rounded.largest_error = std::max(rounded.largest_error, error);
  }
  return rounded;
}

std::string rounding_note(double largest_error) {
  if (largest_error == 0) return "";
  return fmt::format("scales of 32-bit precision rounded to f16, relative error at most {:.1e}",
                     largest_error);
}

}  // namespace quern
