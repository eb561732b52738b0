#include "quant/feedback.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "kernels/dense.h"
#include "quant/factor.h"
#include "quant/objective.h"

namespace quern {
namespace {

constexpr int64_t kRowsPerChunk = 8;
constexpr int kMaxGroup = 128;

// Shares of a group's range that are tried, both ends alike and then each alone.
constexpr std::array<float, 10> kShares = {1.0f, 0.96f, 0.92f, 0.88f, 0.84f,
                                           0.8f, 0.75f, 0.7f,  0.64f, 0.58f};
constexpr std::array<float, 4> kEndChanges = {-0.08f, -0.04f, 0.04f, 0.08f};

// One group of one row while it is rounded.
struct GroupStep {
  int size = 0;
  const float* w = nullptr;  // [size], as wanted
  // What the columns before this group ask of each column, times the factor's diagonal.
  const float* asked = nullptr;
  Tensor factor;  // [size, size], the group's diagonal block
};

// Rounds the group on `grid`; codes[size] and errors[size] = w - rounded. Returns the loss that the
// columns behind cannot take back.
double feed_through(const GroupStep& step, GroupGrid grid, float* codes, float* errors) {
  std::array<float, kMaxGroup> asked;
  std::copy_n(step.asked, step.size, asked.data());
  double loss = 0;
  for (int i = 0; i < step.size; ++i) {
    const float* factor = step.factor.f32_row(i);
    const float target = step.w[i] + asked[static_cast<size_t>(i)] / factor[i];
    codes[i] = encode(target, grid);
    const float rounded = decode(codes[i], grid);
    const float left = (target - rounded) * factor[i];
    loss += static_cast<double>(left) * static_cast<double>(left);
    errors[i] = step.w[i] - rounded;
    for (int k = i + 1; k < step.size; ++k) asked[static_cast<size_t>(k)] += errors[i] * factor[k];
  }
  return loss;
}

// The best grid for the group and, in codes and errors, what it gives.
GroupGrid search_grid(const GroupStep& step, float* codes, float* errors) {
  std::array<float, kMaxGroup> target;
  for (int i = 0; i < step.size; ++i)
    target[static_cast<size_t>(i)] = step.w[i] + step.asked[i] / step.factor.f32_row(i)[i];
  const Range range = range_of(target.data(), step.size);
  std::array<float, kMaxGroup> try_codes;
  std::array<float, kMaxGroup> try_errors;
  GroupGrid best;
  double best_loss = INFINITY;
  float best_low = 1.0f;
  float best_high = 1.0f;
  const auto attempt = [&](float low, float high) {
    const GroupGrid grid = fit_grid(range.low * low, range.high * high);
    const double loss = feed_through(step, grid, try_codes.data(), try_errors.data());
    if (loss >= best_loss) return;
    best_loss = loss;
    best = grid;
    best_low = low;
    best_high = high;
    std::copy_n(try_codes.data(), step.size, codes);
    std::copy_n(try_errors.data(), step.size, errors);
  };
  for (const float share : kShares) attempt(share, share);
  const float common = best_low;
  for (const float change : kEndChanges) attempt(std::min(common + change, 1.05f), best_high);
  const float low = best_low;
  for (const float change : kEndChanges) attempt(low, std::min(common + change, 1.05f));
  return best;
}

// One row's part of refine(): `slope` is (v - w) gram, kept up to date.
struct RowRefiner {
  GroupedWeight& weight;
  int64_t row;
  float* slope;  // [n]
  const FloatMatrix& gram;

  void add_to_slope(int64_t column, float change) const {
    const float* h = gram.row(column);
    for (int64_t k = 0; k < gram.columns(); ++k) slope[k] += change * h[k];
  }

  // Moves each code to where its own column costs least. Returns the number of codes moved.
  int64_t move_codes() const {
    int64_t moved = 0;
    uint8_t* codes = weight.codes.data() + row * weight.columns;
    for (int64_t i = 0; i < weight.columns; ++i) {
      const float scale = grid_at(weight, row, i / weight.group_size).scale;
      const float step = round_half_even(
          std::min(std::max(-slope[i] / (scale * gram.row(i)[i]), -kMaxCode), kMaxCode));
      const float code = static_cast<float>(codes[i]);
      const float moved_code = std::min(std::max(code + step, 0.0f), kMaxCode);
      if (moved_code == code) continue;
      codes[i] = static_cast<uint8_t>(moved_code);
      add_to_slope(i, scale * (moved_code - code));
      ++moved;
    }
    return moved;
  }

  // Puts each group's scale where the row costs least. Returns the number of scales moved.
  int64_t move_scales() const {
    int64_t moved = 0;
    std::array<float, kMaxGroup> steps;
    const int size = weight.group_size;
    for (int64_t g = 0; g < weight.groups(); ++g) {
      const GroupGrid grid = grid_at(weight, row, g);
      const int64_t at = g * size;
      const uint8_t* codes = weight.codes.data() + row * weight.columns + at;
      double slope_sum = 0;
      for (int i = 0; i < size; ++i) {
        steps[static_cast<size_t>(i)] = static_cast<float>(codes[i]) - grid.zero;
        slope_sum += static_cast<double>(steps[static_cast<size_t>(i)] * slope[at + i]);
      }
      double curvature = 0;
      for (int i = 0; i < size; ++i) {
        const float* h = gram.row(at + i) + at;
        float sum = 0;
        for (int k = 0; k < size; ++k) sum += h[k] * steps[static_cast<size_t>(k)];
        curvature += static_cast<double>(steps[static_cast<size_t>(i)] * sum);
      }
      if (!(curvature > 0)) continue;
      const float wanted = grid.scale - static_cast<float>(slope_sum / curvature);
      if (!(wanted > 0.5f * grid.scale)) continue;
      const float scale = fit_grid(0.0f, wanted * kMaxCode).scale;
      const double change = static_cast<double>(scale) - static_cast<double>(grid.scale);
      if (!(2 * change * slope_sum + change * change * curvature < 0)) continue;
      set_grid(weight, row, g, {.scale = scale, .zero = grid.zero});
      for (int i = 0; i < size; ++i) {
        if (steps[static_cast<size_t>(i)] == 0.0f) continue;
        add_to_slope(at + i, static_cast<float>(change) * steps[static_cast<size_t>(i)]);
      }
      ++moved;
    }
    return moved;
  }
};

}  // namespace

Result<OrderedGram> order_gram(ThreadPool& pool, Tensor gram, int group_size, float damping) {
  const int64_t n = gram.shape[0];
  const int64_t groups = n / group_size;
  QUERN_CHECK(groups * group_size == n && group_size <= kMaxGroup);
  std::vector<double> power(static_cast<size_t>(groups), 0.0);
  for (int64_t i = 0; i < n; ++i)
    power[static_cast<size_t>(i / group_size)] += static_cast<double>(gram.f32_row(i)[i]);
  OrderedGram ordered;
  ordered.order.resize(static_cast<size_t>(n));
  std::iota(ordered.order.begin(), ordered.order.end(), 0);
  std::stable_sort(ordered.order.begin(), ordered.order.end(), [&](int32_t a, int32_t b) {
    const int32_t group_a = a / group_size;
    const int32_t group_b = b / group_size;
    if (group_a != group_b) {
      const double power_a = power[static_cast<size_t>(group_a)];
      const double power_b = power[static_cast<size_t>(group_b)];
      return power_a != power_b ? power_a > power_b : group_a < group_b;
    }
    return gram.f32_row(a)[a] > gram.f32_row(b)[b];
  });
  ordered.gram = FloatMatrix(n, n);
  for (int64_t i = 0; i < n; ++i) {
    const float* row = gram.f32_row(ordered.order[static_cast<size_t>(i)]);
    for (int64_t k = 0; k < n; ++k)
      ordered.gram.row(i)[k] = row[ordered.order[static_cast<size_t>(k)]];
  }
  damp(ordered.gram.tensor(), damping);
  ordered.factor = copy_of(ordered.gram.tensor());
  QUERN_TRY(factor_upper(pool, ordered.factor.tensor()));
  return ordered;
}

FloatMatrix reorder_columns(ThreadPool& pool, Tensor x, const std::vector<int32_t>& order) {
  FloatMatrix out(x.rows(), x.shape[1]);
  pool.for_each_chunk(x.rows(), kRowsPerChunk, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const float* from = x.f32_row(row);
      for (size_t i = 0; i < order.size(); ++i) out.row(row)[i] = from[order[i]];
    }
  });
  return out;
}

void correct(ThreadPool& pool, Tensor w, Tensor pull, const OrderedGram& ordered) {
  solve_right(pool, pull, ordered.factor.tensor());
  pool.for_each_chunk(w.rows(), kRowsPerChunk, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t i = 0; i < w.shape[1]; ++i) w.f32_row(row)[i] += pull.f32_row(row)[i];
    }
  });
}

GroupedWeight round_with_feedback(ThreadPool& pool,
                                  Tensor w,
                                  const OrderedGram& ordered,
                                  int group_size) {
  const int64_t n = w.shape[1];
  GroupedWeight out = empty_grouped(w.rows(), n, group_size);
  FloatMatrix errors(w.rows(), n);
  FloatMatrix asked(w.rows(), group_size);
  for (int64_t g = 0; g < out.groups(); ++g) {
    const int64_t at = g * group_size;
    if (at > 0) {
      gemm_f32(pool, asked.tensor(), errors.tensor().slice_columns(0, at),
               ordered.factor.tensor().slice_rows(0, at).slice_columns(at, group_size), {});
    }
    const Tensor diagonal =
        ordered.factor.tensor().slice_rows(at, group_size).slice_columns(at, group_size);
    pool.for_each_chunk(w.rows(), kRowsPerChunk, [&](int64_t begin, int64_t end, int) {
      std::array<float, kMaxGroup> codes;
      for (int64_t row = begin; row < end; ++row) {
        const GroupStep step{group_size, w.f32_row(row) + at, asked.row(row), diagonal};
        const GroupGrid grid = search_grid(step, codes.data(), errors.row(row) + at);
        set_grid(out, row, g, grid);
        uint8_t* to = out.codes.data() + row * n + at;
        for (int i = 0; i < group_size; ++i)
          to[i] = static_cast<uint8_t>(codes[static_cast<size_t>(i)]);
      }
    });
  }
  return out;
}

void refine(
    ThreadPool& pool, GroupedWeight& weight, Tensor w, const OrderedGram& ordered, int sweeps) {
  constexpr int64_t kBlockRows = 512;
  const int64_t block = std::min(kBlockRows, weight.rows);
  FloatMatrix values(weight.rows, weight.columns);
  dequantize(pool, weight, values.tensor());
  subtract(pool, values.tensor(), w);
  FloatMatrix slopes(block, weight.columns);
  for (int64_t begin = 0; begin < weight.rows; begin += block) {
    const int64_t count = std::min(block, weight.rows - begin);
    gemm_f32(pool, slopes.tensor().slice_rows(0, count), values.tensor().slice_rows(begin, count),
             ordered.gram.tensor(), {});
    pool.for_each_chunk(count, 1, [&](int64_t first, int64_t end, int) {
      for (int64_t i = first; i < end; ++i) {
        const RowRefiner row{weight, begin + i, slopes.row(i), ordered.gram};
        for (int sweep = 0; sweep < sweeps; ++sweep) {
          const int64_t codes = row.move_codes();
          const int64_t scales = row.move_scales();
          if (codes + scales == 0) break;
        }
      }
    });
  }
}

GroupedWeight restore_order(const GroupedWeight& weight, const std::vector<int32_t>& order) {
  GroupedWeight out = empty_grouped(weight.rows, weight.columns, weight.group_size);
  for (int64_t row = 0; row < weight.rows; ++row) {
    for (int64_t i = 0; i < weight.columns; ++i) {
      const int64_t column = order[static_cast<size_t>(i)];
      out.codes[static_cast<size_t>(row * weight.columns + column)] =
          weight.codes[static_cast<size_t>(row * weight.columns + i)];
    }
    for (int64_t g = 0; g < weight.groups(); ++g) {
      const int64_t group = order[static_cast<size_t>(g * weight.group_size)] / weight.group_size;
      set_grid(out, row, group, grid_at(weight, row, g));
    }
  }
  return out;
}

}  // namespace quern
