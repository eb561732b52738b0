// The numbers of an int8 key-value cache, the same on every backend; how they lie in a block is the
// backend's own.
//
// A key of one head is quantised in groups of kKeyGroup dimensions (the last may be shorter), so
// that a channel with outliers, which the keys of many models have, costs only its own group
// precision. A value of one head has one scale, which attention folds into the probability. For
// each group, with m = max|x|, all in float32:
//   scale = m / 127, code = round_half_even(x * (127 / m))
//   scale = 0, code = 0 when m < kSmallestMagnitude, whose inverse would overflow
//   code = 0 when m is infinite or NaN: so is the scale, and every score it meets becomes NaN
#pragma once

#include "kernels/backend.h"

namespace quern {

inline constexpr int kKeyGroup = 32;
inline constexpr float kSmallestMagnitude = 0x1p-100f;

constexpr int key_groups(const KvLayout& layout) {
  return (layout.head_dim + kKeyGroup - 1) / kKeyGroup;
}

}  // namespace quern
