// The numbers of an int8 key-value cache, the same on every backend; how they lie in a block is the
// backend's own.
//
// A key of one head is quantised in groups of kKeyGroup dimensions (the last may be shorter), so
// that a channel with outliers, which the keys of many models have, costs only its own group
// precision. A value of one head has one scale, which attention folds into the probability. For
// each group:
//   scale = max|x| / 127 (float32), code = round_half_even(x / scale), 0 when scale = 0.
// A NaN or an infinity makes the scale NaN or infinite, so every score it meets becomes NaN.
#pragma once

#include "kernels/backend.h"

namespace quern {

inline constexpr int kKeyGroup = 32;

constexpr int key_groups(const KvLayout& layout) {
  return (layout.head_dim + kKeyGroup - 1) / kKeyGroup;
}

}  // namespace quern
