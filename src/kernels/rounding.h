// How packing rounds the float32 scales and minima of a checkpoint to the f16 of the packed
// formats; shared by all backends, since linear() is defined by the rounded values.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/float16.h"

namespace quern {

// Value i is f16_to_f32(halves[i]) * 2^exponent, exactly.
struct RoundedScales {
  std::vector<uint16_t> halves;
  int exponent = 0;
  double largest_error = 0;  // relative to each value; 0 when every value is exact

  float unit() const;

  float value(size_t i) const { return f16_to_f32(halves[i]) * unit(); }
};

// The exponent is 0 where f16 holds every value as well as it can (no overflow, no subnormal);
// else it moves the largest magnitude below 2^15, so nothing overflows and 29 binades keep full
// precision. Requires finite values.
RoundedScales round_scales(std::span<const float> scales);

// "" for an exact rounding, else a phrase for PackedWeight::note().
std::string rounding_note(double largest_error);

// Activations of linear(): a group whose largest magnitude is below this counts as zero, so that
// neither 127 / max nor the products leave the range of normal numbers.
inline constexpr float kSmallestActivation = 0x1p-100f;

}  // namespace quern
