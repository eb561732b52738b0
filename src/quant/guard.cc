#include "quant/guard.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <vector>

#include "base/check.h"
#include "kernels/dense.h"
#include "quant/lanes.h"
#include "quant/objective.h"
#include "quant/rounding.h"

namespace quern {
namespace {

constexpr int kMaxGroup = 128;

struct Row {
  GroupedWeight& weight;
  int64_t row;
  const float* w;
  float* slope;  // d gram - pull, kept up to date
  Tensor gram;
};

// Puts plain rounding in place of group `g` where that lowers the row's cost.
bool revert_group(const Row& r, int64_t g) {
  const int size = r.weight.group_size;
  const int64_t at = g * size;
  const Range range = range_of(r.w + at, size);
  const GroupGrid plain = fit_grid(range.low, range.high);
  const GroupGrid now = grid_at(r.weight, r.row, g);
  const uint8_t* codes = r.weight.codes.data() + r.row * r.weight.columns + at;
  std::array<float, kMaxGroup> change;
  for (int i = 0; i < size; ++i) {
    change[static_cast<size_t>(i)] =
        nearest(r.w[at + i], plain) - decode(static_cast<float>(codes[i]), now);
  }
  std::array<float, kMaxGroup> product{};  // the group's block of gram times the change, and twice
  for (int i = 0; i < size; ++i) {         // the slope
    add_scaled(product.data(), change[static_cast<size_t>(i)], r.gram.f32_row(at + i) + at, size);
  }
  add_scaled(product.data(), 2.0f, r.slope + at, size);
  const float difference = dot(change.data(), product.data(), size);
  if (!(difference < 0)) return false;
  encode_group(r.weight, r.row, g, r.w + at, plain);
  for (int i = 0; i < size; ++i) {
    add_scaled(r.slope, change[static_cast<size_t>(i)], r.gram.f32_row(at + i), r.weight.columns);
  }
  return true;
}

// d gram d - 2 d pull = d . (slope - pull), with the slope d gram - pull.
double row_cost(const float* d, const float* slope, const float* pull, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    const float both = pull == nullptr ? slope[i] : slope[i] - pull[i];
    sum += static_cast<double>(d[i]) * static_cast<double>(both);
  }
  return sum;
}

// What rows are judged by.
struct HeldOut {
  Tensor w;
  Tensor gram;
  const Tensor* pull;
};

FloatMatrix errors_of(ThreadPool& pool, const GroupedWeight& weight, const HeldOut& s) {
  FloatMatrix errors(weight.rows, weight.columns);
  dequantize(pool, weight, errors.tensor());
  subtract(pool, errors.tensor(), s.w);
  return errors;
}

struct Judgement {
  GroupedWeight& weight;
  const GroupedWeight& plain;
  const HeldOut& held_out;
};

// A row that costs more than `limit`, what plain rounding of it costs. Returns the number of groups
// that went back.
int64_t judge_row(const Judgement& j, int64_t row, float* slope, double limit) {
  GroupedWeight& weight = j.weight;
  const HeldOut& s = j.held_out;
  const int64_t n = weight.columns;
  const Row r{weight, row, s.w.f32_row(row), slope, s.gram};
  int64_t reverted = 0;
  for (int64_t g = 0; g < weight.groups(); ++g) reverted += revert_group(r, g) ? 1 : 0;
  std::vector<float> d(static_cast<size_t>(n));
  widen_row(weight, row, d.data());
  for (size_t i = 0; i < d.size(); ++i) d[i] -= s.w.f32_row(row)[i];
  const float* pull = s.pull == nullptr ? nullptr : s.pull->f32_row(row);
  if (row_cost(d.data(), slope, pull, n) <= limit) return reverted;
  for (int64_t g = 0; g < weight.groups(); ++g) {
    const GroupGrid grid = grid_at(j.plain, row, g);
    encode_group(weight, row, g, s.w.f32_row(row) + g * weight.group_size, grid);
  }
  return weight.groups();
}

}  // namespace

int64_t revert_worse_groups(
    ThreadPool& pool, GroupedWeight& weight, Tensor w, Tensor gram, const Tensor* pull) {
  QUERN_CHECK(weight.group_size <= kMaxGroup);
  const HeldOut s{w, gram, pull};
  const GroupedWeight plain = round_to_nearest(pool, w, weight.group_size);
  const std::vector<double> limits =
      row_costs(pool, errors_of(pool, plain, s).tensor(), gram, pull);
  const FloatMatrix errors = errors_of(pool, weight, s);
  const std::vector<double> costs = row_costs(pool, errors.tensor(), gram, pull);
  std::vector<int64_t> worse;
  for (int64_t row = 0; row < weight.rows; ++row) {
    if (costs[static_cast<size_t>(row)] > limits[static_cast<size_t>(row)]) worse.push_back(row);
  }
  const auto count = static_cast<int64_t>(worse.size());
  FloatMatrix slopes(count, weight.columns);
  for (int64_t i = 0; i < count; ++i)  // rows of errors move up
    std::copy_n(errors.row(worse[static_cast<size_t>(i)]), weight.columns, errors.row(i));
  gemm_f32(pool, slopes.tensor(), errors.tensor().slice_rows(0, count), gram, {});
  const Judgement judgement{weight, plain, s};
  std::atomic<int64_t> reverted{0};
  pool.for_each_chunk(count, 1, [&](int64_t first, int64_t end, int) {
    for (int64_t i = first; i < end; ++i) {
      const int64_t row = worse[static_cast<size_t>(i)];
      float* slope = slopes.row(i);
      for (int64_t c = 0; pull != nullptr && c < weight.columns; ++c)
        slope[c] -= pull->f32_row(row)[c];
      reverted += judge_row(judgement, row, slope, limits[static_cast<size_t>(row)]);
    }
  });
  return reverted;
}

}  // namespace quern
