// FP8 E4M3 (arXiv:2209.05433): a sign, four bits of exponent with bias 7, three of mantissa; no
// infinities, the largest number is 448, and 0x7f and 0xff are NaN.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "tensor/weight.h"

namespace quern {

// Exact.
float e4m3_to_f32(uint8_t bits);

// A matrix over `codes`, which hold rows * columns numbers and outlive it; `scales` has one number
// for each block of `block_rows` x `block_columns`, the last of a row or column being cut off.
// `name` says what it is in messages.
// Errors: kInvalidArgument when the number of scales is another, or a scale or number is NaN or
// infinite.
struct Float8Parts {
  std::string_view name{};
  std::span<const std::byte> codes{};
  std::array<int64_t, 2> shape{};
  std::vector<float> scales{};
  int64_t block_rows = 0;
  int64_t block_columns = 0;
};
Result<Float8Weight> make_float8_weight(Float8Parts parts);

// The group size for integers_of() of a matrix whose scales hold for `block_columns`: the largest
// of 128, 64 and 32 that fits; nullopt when none does.
std::optional<int> float8_group_size(int64_t columns, int64_t block_columns);

// As 8-bit integers in groups of `group_size` columns. The scale of a group is that of its block
// times a power of two, such that the largest number becomes 64 to 120: numbers of the four binades
// from there down are exact, smaller ones are rounded to the nearest multiple, half to even.
// Requires that the group size divides the columns and that no group lies in two blocks.
GroupedWeight integers_of(const Float8Weight& weight, int group_size, ThreadPool& pool);

}  // namespace quern
