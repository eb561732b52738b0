#include "quant/rounding.h"

#include "base/check.h"
#include "base/float16.h"

namespace quern {
namespace {

constexpr float kLeastRange =
    1e-5f;  // a group of equal numbers still has a scale that f16 can hold
constexpr int64_t kRowsPerChunk = 16;

}  // namespace

GroupGrid fit_grid(float low, float high) {
  low = std::min(low, 0.0f);
  high = std::max(high, 0.0f);
  const float scale = f16_to_f32(f32_to_f16(std::max(high - low, kLeastRange) / kMaxCode));
  const float steps = std::min(std::max(-low / scale, 0.0f), 64.0f);
  return {.scale = scale, .zero = std::min(round_half_even(steps), kMaxCode)};
}

float nearest_scale(float scale) {
  return fit_grid(0.0f, std::min(scale * kMaxCode, kMaxWeight)).scale;
}

Range range_of(const float* w, int64_t count) {
  Range range{w[0], w[0]};
  for (int64_t i = 1; i < count; ++i) {
    range.low = std::min(range.low, w[i]);
    range.high = std::max(range.high, w[i]);
  }
  return range;
}

GroupedWeight empty_grouped(int64_t rows, int64_t columns, int group_size) {
  QUERN_CHECK(group_size > 0 && columns % group_size == 0);
  GroupedWeight weight;
  weight.rows = rows;
  weight.columns = columns;
  weight.group_size = group_size;
  weight.bits = kBits;
  weight.codes.resize(static_cast<size_t>(rows * columns));
  weight.scales.resize(static_cast<size_t>(rows * weight.groups()));
  weight.zeros.resize(static_cast<size_t>(rows * weight.groups()));
  return weight;
}

GroupGrid grid_at(const GroupedWeight& weight, int64_t row, int64_t group) {
  const auto index = static_cast<size_t>(row * weight.groups() + group);
  return {.scale = weight.scales[index], .zero = static_cast<float>(weight.zeros[index])};
}

void set_grid(GroupedWeight& weight, int64_t row, int64_t group, GroupGrid grid) {
  const auto index = static_cast<size_t>(row * weight.groups() + group);
  weight.scales[index] = grid.scale;
  weight.zeros[index] = static_cast<uint8_t>(grid.zero);
}

void encode_group(
    GroupedWeight& weight, int64_t row, int64_t group, const float* w, GroupGrid grid) {
  set_grid(weight, row, group, grid);
  uint8_t* codes = weight.codes.data() + row * weight.columns + group * weight.group_size;
  for (int i = 0; i < weight.group_size; ++i) codes[i] = static_cast<uint8_t>(encode(w[i], grid));
}

GroupedWeight round_to_nearest(ThreadPool& pool, Tensor w, int group_size) {
  GroupedWeight out = empty_grouped(w.shape[0], w.shape[1], group_size);
  pool.for_each_chunk(out.rows, kRowsPerChunk, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t g = 0; g < out.groups(); ++g) {
        const float* values = w.f32_row(row) + g * group_size;
        const Range range = range_of(values, group_size);
        encode_group(out, row, g, values, fit_grid(range.low, range.high));
      }
    }
  });
  return out;
}

void dequantize(ThreadPool& pool, const GroupedWeight& weight, Tensor out) {
  pool.for_each_chunk(weight.rows, kRowsPerChunk, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t g = 0; g < weight.groups(); ++g) {
        const GroupGrid grid = grid_at(weight, row, g);
        const int64_t at = g * weight.group_size;
        const uint8_t* codes = weight.codes.data() + row * weight.columns + at;
        float* values = out.f32_row(row) + at;
        for (int i = 0; i < weight.group_size; ++i)
          values[i] = decode(static_cast<float>(codes[i]), grid);
      }
    }
  });
}

}  // namespace quern
