#include "quant/guard.h"

#include <algorithm>
#include <array>
#include <atomic>

#include "base/check.h"
#include "kernels/dense.h"
#include "quant/objective.h"
#include "quant/rounding.h"

namespace quern {
namespace {

constexpr int64_t kBlockRows = 512;
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
  double difference = 0;
  for (int i = 0; i < size; ++i) {
    const float* h = r.gram.f32_row(at + i) + at;
    float sum = 2.0f * r.slope[at + i];
    for (int k = 0; k < size; ++k) sum += h[k] * change[static_cast<size_t>(k)];
    difference += static_cast<double>(change[static_cast<size_t>(i)] * sum);
  }
  if (difference >= 0) return false;
  encode_group(r.weight, r.row, g, r.w + at, plain);
  for (int i = 0; i < size; ++i) {
    const float* h = r.gram.f32_row(at + i);
    for (int64_t k = 0; k < r.weight.columns; ++k)
      r.slope[k] += change[static_cast<size_t>(i)] * h[k];
  }
  return true;
}

}  // namespace

int64_t revert_worse_groups(
    ThreadPool& pool, GroupedWeight& weight, Tensor w, Tensor gram, const Tensor* pull) {
  QUERN_CHECK(weight.group_size <= kMaxGroup);
  const int64_t block = std::min(kBlockRows, weight.rows);
  FloatMatrix errors(weight.rows, weight.columns);
  dequantize(pool, weight, errors.tensor());
  subtract(pool, errors.tensor(), w);
  FloatMatrix slopes(block, weight.columns);
  std::atomic<int64_t> reverted{0};
  for (int64_t begin = 0; begin < weight.rows; begin += block) {
    const int64_t count = std::min(block, weight.rows - begin);
    const Tensor part = slopes.tensor().slice_rows(0, count);
    gemm_f32(pool, part, errors.tensor().slice_rows(begin, count), gram, {});
    if (pull != nullptr) subtract(pool, part, pull->slice_rows(begin, count));
    pool.for_each_chunk(count, 1, [&](int64_t first, int64_t end, int) {
      for (int64_t i = first; i < end; ++i) {
        const Row row{weight, begin + i, w.f32_row(begin + i), slopes.row(i), gram};
        for (int64_t g = 0; g < weight.groups(); ++g) reverted += revert_group(row, g) ? 1 : 0;
      }
    });
  }
  return reverted;
}

}  // namespace quern
