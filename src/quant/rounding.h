// The law by which a group of weights becomes 4-bit codes: an f16 scale, an integer zero point and
// rounding half to even. Every method ends here.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "base/thread_pool.h"
#include "tensor/tensor.h"
#include "tensor/weight.h"

namespace quern {

inline constexpr int kBits = 4;
inline constexpr float kMaxCode = 15.0f;  // 2^kBits - 1

// The largest weight that an f16 scale can express: 65504 * 15.
inline constexpr float kMaxWeight = 65504.0f * kMaxCode;

// w ~ scale * (code - zero) for every weight of a group. `scale` is positive and a number of f16,
// `zero` an integer in [0, kMaxCode].
struct GroupGrid {
  float scale = 1.0f;
  float zero = 0.0f;
};

// The grid that spans [min(low, 0), max(high, 0)]: scale = max(range, 1e-5) / 15 rounded to f16,
// zero = clamp(-round(low / scale), 0, 15). Requires finite numbers of at most kMaxWeight.
GroupGrid fit_grid(float low, float high);

// The nearest scale that a grid can have: positive and a number of f16. Requires a positive number.
float nearest_scale(float scale);

// Half to even for |x| below 2^22: adding 1.5 * 2^23 leaves no bits behind the point.
inline float round_half_even(float x) {
  constexpr float kShift = 12582912.0f;
  return (x + kShift) - kShift;
}

// clamp(round(w / scale) + zero, 0, 15), as a float. Weights far outside the grid saturate.
inline float encode(float w, GroupGrid grid) {
  const float steps = std::min(std::max(w / grid.scale, -64.0f), 64.0f);
  return std::min(std::max(round_half_even(steps) + grid.zero, 0.0f), kMaxCode);
}

inline float decode(float code, GroupGrid grid) { return grid.scale * (code - grid.zero); }

inline float nearest(float w, GroupGrid grid) { return decode(encode(w, grid), grid); }

// min and max of `count` weights, at least 1.
struct Range {
  float low = 0.0f;
  float high = 0.0f;
};
Range range_of(const float* w, int64_t count);

// A matrix of codes to be filled: [rows, columns], groups of `group_size`, which divides columns.
GroupedWeight empty_grouped(int64_t rows, int64_t columns, int group_size);

// Group `group` of row `row`: its grid, and the codes of w[group_size].
GroupGrid grid_at(const GroupedWeight& weight, int64_t row, int64_t group);
void set_grid(GroupedWeight& weight, int64_t row, int64_t group, GroupGrid grid);
void encode_group(
    GroupedWeight& weight, int64_t row, int64_t group, const float* w, GroupGrid grid);

// Every group on the grid of its own range. w: [rows, columns] f32.
GroupedWeight round_to_nearest(ThreadPool& pool, Tensor w, int group_size);

// out = the numbers that the codes stand for. out: [rows, columns] f32.
void dequantize(ThreadPool& pool, const GroupedWeight& weight, Tensor out);

}  // namespace quern
