#include "quant/feedback.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numeric>
#include <utility>

#include "base/check.h"
#include "kernels/dense.h"
#include "quant/factor.h"
#include "quant/lanes.h"
#include "quant/objective.h"

namespace quern {
namespace {

constexpr int64_t kRowsPerChunk = 8;
constexpr int kMaxGroup = 128;
constexpr int kScaleSweeps = 2;
constexpr int64_t kPanel = 512;  // columns that hear of the errors before them all at once

// Rows that are refined together hear of their changes in so many columns at a time, for which a
// group's rows of gram, 128 x 1024 x 4 bytes at most, stay in the second-level cache.
constexpr int64_t kRefinedTogether = 16;
constexpr int64_t kFlushedColumns = 1024;

// Shares of a group's range that are tried, both ends alike and then each alone.
constexpr std::array<float, 8> kShares = {1.0f, 0.95f, 0.9f, 0.85f, 0.8f, 0.74f, 0.68f, 0.6f};
constexpr std::array<float, 2> kEndChanges = {-0.06f, 0.06f};
constexpr float kLargestShare = 1.05f;

constexpr int kLanes = 16;  // rows that go through a group side by side: one zmm, two ymm

using Lanes = std::array<float, kLanes>;

// The codes of one group of kLanes rows on their way: column by column, a lane for each row.
struct GroupLanes {
  int size = 0;
  std::array<Lanes, kMaxGroup> w;      // as wanted
  std::array<Lanes, kMaxGroup> asked;  // what the columns before this group ask, see feed_through()
  std::array<Lanes, kMaxGroup> codes;
  std::array<Lanes, kMaxGroup> errors;  // w - rounded
  Tensor factor;                        // [size, size], the group's diagonal block
};

// Grids and what they cost, a lane for each row.
struct GridLanes {
  Lanes scale{};
  Lanes zero{};
  Lanes loss{};
};

// Rounds column i of the group: its target is its weight plus what is asked of it, over the
// factor's diagonal.
[[gnu::always_inline]] inline void round_column(
    GroupLanes& group, GridLanes& grid, size_t i, float diagonal, const Lanes& asked) {
  const float inverse = 1.0f / diagonal;
  for (size_t r = 0; r < kLanes; ++r) {
    const float target = group.w[i][r] + asked[r] * inverse;
    const float code = encode(target, {grid.scale[r], grid.zero[r]});
    const float rounded = grid.scale[r] * (code - grid.zero[r]);
    const float left = (target - rounded) * diagonal;
    grid.loss[r] += left * left;
    group.codes[i][r] = code;
    group.errors[i][r] = group.w[i][r] - rounded;
  }
}

// Lanes that the compiler keeps in registers.
using Vector = float __attribute__((vector_size(kLanes * sizeof(float))));

// Rounds the group on the given grids: fills codes and errors, and the loss that the columns behind
// cannot take back. A few columns hear of each other at once, the rest of all of them together, so
// that it is read and written once for them.
QUERN_CLONES
void feed_through(GroupLanes& group, GridLanes& grid) {
  constexpr size_t kTogether = 8;
  const auto size = static_cast<size_t>(group.size);
  std::array<Vector, kMaxGroup> asked;
  std::memcpy(asked.data(), group.asked.data(), size * sizeof(Lanes));
  grid.loss = Lanes{};
  for (size_t begin = 0; begin < size; begin += kTogether) {
    std::array<Vector, kTogether> errors;
    std::array<const float*, kTogether> factor;  // from column `begin`
    for (size_t i = 0; i < kTogether; ++i) {
      factor[i] = group.factor.f32_row(static_cast<int64_t>(begin + i)) + begin;
      Lanes target;
      std::memcpy(&target, &asked[begin + i], sizeof target);
      round_column(group, grid, begin + i, factor[i][i], target);
      std::memcpy(&errors[i], &group.errors[begin + i], sizeof target);
      for (size_t k = i + 1; k < kTogether; ++k) asked[begin + k] += errors[i] * factor[i][k];
    }
    for (size_t k = kTogether; k < size - begin; ++k) {
      Vector next = asked[begin + k];
      for (size_t i = 0; i < kTogether; ++i) next += errors[i] * factor[i][k];
      asked[begin + k] = next;
    }
  }
}

// The search for the best grids of one group.
class GridSearch {
 public:
  explicit GridSearch(GroupLanes& group) : group_(group) {
    for (size_t r = 0; r < kLanes; ++r) ranges_[r] = target_range(r);
    best_.loss.fill(INFINITY);
  }

  // Leaves the codes and errors of the best grids in the group.
  GridLanes run() {
    for (const float share : kShares) {
      low_.fill(share);
      high_.fill(share);
      attempt();
    }
    for (const float change : kEndChanges) {
      for (size_t r = 0; r < kLanes; ++r) {
        low_[r] = std::min(best_low_[r] + change, kLargestShare);
        high_[r] = best_high_[r];
      }
      attempt();
    }
    for (const float change : kEndChanges) {
      for (size_t r = 0; r < kLanes; ++r) {
        low_[r] = best_low_[r];
        high_[r] = std::min(best_high_[r] + change, kLargestShare);
      }
      attempt();
    }
    feed_through(group_, best_);
    return best_;
  }

 private:
  Range target_range(size_t r) const {
    Range range{INFINITY, -INFINITY};
    for (int i = 0; i < group_.size; ++i) {
      const auto at = static_cast<size_t>(i);
      const float target = group_.w[at][r] + group_.asked[at][r] / group_.factor.f32_row(i)[i];
      range.low = std::min(range.low, target);
      range.high = std::max(range.high, target);
    }
    return range;
  }

  void attempt() {
    GridLanes grid;
    for (size_t r = 0; r < kLanes; ++r) {
      const GroupGrid g = fit_grid(ranges_[r].low * low_[r], ranges_[r].high * high_[r]);
      grid.scale[r] = g.scale;
      grid.zero[r] = g.zero;
    }
    feed_through(group_, grid);
    for (size_t r = 0; r < kLanes; ++r) {
      if (!(grid.loss[r] < best_.loss[r])) continue;
      best_.loss[r] = grid.loss[r];
      best_.scale[r] = grid.scale[r];
      best_.zero[r] = grid.zero[r];
      best_low_[r] = low_[r];
      best_high_[r] = high_[r];
    }
  }

  GroupLanes& group_;
  std::array<Range, kLanes> ranges_;
  GridLanes best_;
  Lanes low_{}, high_{}, best_low_{}, best_high_{};
};

// One group of all rows: what goes in and where results go.
struct GroupJob {
  int64_t group = 0;
  Tensor w;       // [rows, n]
  Tensor asked;   // [rows, group_size]
  Tensor errors;  // [rows, n]
  Tensor factor;  // [group_size, group_size]
  GroupedWeight& out;
};

// Rows [begin, begin + kLanes) of a group; lanes beyond the last row repeat it.
void round_group(const GroupJob& job, int64_t begin) {
  const int64_t rows = std::min<int64_t>(kLanes, job.w.rows() - begin);
  const int64_t at = job.group * job.out.group_size;
  GroupLanes lanes;
  lanes.size = job.out.group_size;
  lanes.factor = job.factor;
  for (size_t r = 0; r < kLanes; ++r) {
    const int64_t row = begin + std::min<int64_t>(static_cast<int64_t>(r), rows - 1);
    const float* w = job.w.f32_row(row) + at;
    const float* asked = job.asked.f32_row(row);
    for (int i = 0; i < lanes.size; ++i) {
      lanes.w[static_cast<size_t>(i)][r] = w[i];
      lanes.asked[static_cast<size_t>(i)][r] = asked[i];
    }
  }
  const GridLanes best = GridSearch(lanes).run();
  for (int64_t row = 0; row < rows; ++row) {
    const auto r = static_cast<size_t>(row);
    set_grid(job.out, begin + row, job.group, {best.scale[r], best.zero[r]});
    uint8_t* codes = job.out.codes.data() + (begin + row) * job.out.columns + at;
    float* errors = job.errors.f32_row(begin + row) + at;
    for (int i = 0; i < lanes.size; ++i) {
      codes[i] = static_cast<uint8_t>(lanes.codes[static_cast<size_t>(i)][r]);
      errors[i] = lanes.errors[static_cast<size_t>(i)][r];
    }
  }
}

// One group's part of one row of refine(). `slope` is (v - w) gram: inside the group it is kept up
// to date, elsewhere once every column went through flush().
class GroupRefiner {
 public:
  GroupRefiner(
      GroupedWeight& weight, int64_t row, int64_t group, float* slope, const FloatMatrix& gram)
      : weight_(weight),
        row_(row),
        group_(group),
        at_(group * weight.group_size),
        size_(weight.group_size),
        codes_(weight.codes.data() + row * weight.columns + at_),
        slope_(slope),
        gram_(gram) {}

  // Moves each code to where its own column costs least. Returns whether one was moved.
  bool move_codes() {
    const float scale = grid_at(weight_, row_, group_).scale;
    for (int i = 0; i < size_; ++i) {
      const float step = round_half_even(
          std::min(std::max(-slope_[at_ + i] / (scale * block_row(i)[i]), -kMaxCode), kMaxCode));
      const float code = static_cast<float>(codes_[i]);
      const float moved = std::min(std::max(code + step, 0.0f), kMaxCode);
      if (moved == code) continue;
      codes_[i] = static_cast<uint8_t>(moved);
      change(i, scale * (moved - code));
    }
    return changes_ > 0;
  }

  // Puts the scale where the row costs least. Returns whether it was moved.
  bool move_scale() {
    const GroupGrid grid = grid_at(weight_, row_, group_);
    std::array<float, kMaxGroup> steps{};
    std::array<float, kMaxGroup> product{};  // the group's block of gram times the steps
    for (int i = 0; i < size_; ++i) {
      const float step = static_cast<float>(codes_[i]) - grid.zero;
      steps[static_cast<size_t>(i)] = step;
      if (step != 0.0f) add_scaled(product.data(), step, block_row(i), size_);
    }
    const auto pull = static_cast<double>(dot(steps.data(), slope_ + at_, size_));
    const auto curvature = static_cast<double>(dot(steps.data(), product.data(), size_));
    if (!(curvature > 0)) return false;
    const float wanted = grid.scale - static_cast<float>(pull / curvature);
    if (!(wanted > 0.5f * grid.scale && wanted < 2.0f * grid.scale)) return false;
    const float scale = nearest_scale(wanted);
    const double step = static_cast<double>(scale) - static_cast<double>(grid.scale);
    if (!(2 * step * pull + step * step * curvature < 0)) return false;
    set_grid(weight_, row_, group_, {.scale = scale, .zero = grid.zero});
    for (int i = 0; i < size_; ++i) {
      if (steps[static_cast<size_t>(i)] != 0.0f) {
        change(i, static_cast<float>(step) * steps[static_cast<size_t>(i)]);
      }
    }
    return changes_ > 0;
  }

  // Tells the columns of `range` outside the group of the changes.
  void flush(ColumnRange range) {
    if (changes_ == 0) return;
    add_scaled_rows(slope_, amounts_.data(), columns_.data(), changes_,
                    {range.begin, std::min(range.end, at_)});
    add_scaled_rows(slope_, amounts_.data(), columns_.data(), changes_,
                    {std::max(range.begin, at_ + size_), range.end});
  }

 private:
  const float* block_row(int i) const { return gram_.row(at_ + i) + at_; }

  // The group's column i changes by `amount`.
  void change(int i, float amount) {
    add_scaled(slope_ + at_, amount, block_row(i), size_);
    columns_[static_cast<size_t>(changes_)] = gram_.row(at_ + i);
    amounts_[static_cast<size_t>(changes_)] = amount;
    ++changes_;
  }

  GroupedWeight& weight_;
  int64_t row_;
  int64_t group_;
  int64_t at_;
  int size_;
  uint8_t* codes_;
  float* slope_;
  const FloatMatrix& gram_;
  int changes_ = 0;
  std::array<const float*, kMaxGroup> columns_;
  std::array<float, kMaxGroup> amounts_;
};

// Rows [begin, begin + slopes.rows()) of refine(), group by group, so that a group's rows of gram
// are read once for all of them.
class BlockRefiner {
 public:
  BlockRefiner(ThreadPool& pool,
               GroupedWeight& weight,
               int64_t begin,
               Tensor slopes,
               const FloatMatrix& gram)
      : pool_(pool),
        weight_(weight),
        begin_(begin),
        slopes_(slopes),
        gram_(gram),
        moved_(static_cast<size_t>(slopes.rows()), 1) {}

  void run(int sweeps) {
    for (int sweep = 0; sweep < sweeps; ++sweep) {
      active_ = std::exchange(moved_, std::vector<uint8_t>(moved_.size(), 0));
      // Scales settle sooner than codes do, and cost as much as all of a row's codes.
      if (sweep < kScaleSweeps) for_groups([](GroupRefiner& group) { return group.move_scale(); });
      for_groups([](GroupRefiner& group) { return group.move_codes(); });
      if (std::find(moved_.begin(), moved_.end(), 1) == moved_.end()) break;
    }
  }

 private:
  // A row in which nothing moved in a whole sweep is done.
  template <typename Move>
  void for_groups(Move move) {
    for (int64_t g = 0; g < weight_.groups(); ++g) {
      pool_.for_each_chunk(slopes_.rows(), kRefinedTogether, [&](int64_t first, int64_t end, int) {
        std::vector<GroupRefiner> groups;
        groups.reserve(kRefinedTogether);
        for (int64_t i = first; i < end; ++i) {
          const auto row = static_cast<size_t>(i);
          if (active_[row] == 0) continue;
          groups.emplace_back(weight_, begin_ + i, g, slopes_.f32_row(i), gram_);
          if (move(groups.back())) moved_[row] = 1;
        }
        for (int64_t at = 0; at < gram_.columns(); at += kFlushedColumns) {
          const int64_t end_at = std::min(at + kFlushedColumns, gram_.columns());
          for (GroupRefiner& group : groups) group.flush({at, end_at});
        }
      });
    }
  }

  ThreadPool& pool_;
  GroupedWeight& weight_;
  int64_t begin_;
  Tensor slopes_;
  const FloatMatrix& gram_;
  std::vector<uint8_t> active_;
  std::vector<uint8_t> moved_;  // in this sweep
};

}  // namespace

Result<OrderedGram> order_gram(ThreadPool& pool, Tensor gram, int group_size, float damping) {
  const int64_t n = gram.shape[0];
  const int64_t groups = n / group_size;
  QUERN_CHECK(groups * group_size == n && group_size <= kMaxGroup && group_size % 8 == 0);
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
  pool.for_each_chunk(n, kRowsPerChunk, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const float* row = gram.f32_row(ordered.order[static_cast<size_t>(i)]);
      for (int64_t k = 0; k < n; ++k)
        ordered.gram.row(i)[k] = row[ordered.order[static_cast<size_t>(k)]];
    }
  });
  damp(ordered.gram.tensor(), damping);
  ordered.factor = FloatMatrix(n, n);
  copy_into(pool, ordered.factor.tensor(), ordered.gram.tensor());
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
  FloatMatrix asked(w.rows(), std::min(kPanel, n));
  const auto factor = [&](int64_t row, int64_t rows, int64_t column, int64_t columns) {
    return ordered.factor.tensor().slice_rows(row, rows).slice_columns(column, columns);
  };
  for (int64_t g = 0; g < out.groups(); ++g) {
    const int64_t at = g * group_size;
    const int64_t panel = at / kPanel * kPanel;
    const Tensor asked_here = asked.tensor().slice_columns(at - panel, group_size);
    if (at == panel && at > 0) {
      const int64_t width = std::min(kPanel, n - at);
      gemm_f32(pool, asked.tensor().slice_columns(0, width), errors.tensor().slice_columns(0, at),
               factor(0, at, at, width), {});
    } else if (at > panel) {
      gemm_f32(pool, asked_here, errors.tensor().slice_columns(panel, at - panel),
               factor(panel, at - panel, at, group_size), {.beta = panel == 0 ? 0.0f : 1.0f});
    }
    const GroupJob job{g,  w, asked_here, errors.tensor(), factor(at, group_size, at, group_size),
                       out};
    pool.for_each_chunk((w.rows() + kLanes - 1) / kLanes, 1, [&](int64_t first, int64_t end, int) {
      for (int64_t block = first; block < end; ++block) round_group(job, block * kLanes);
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
    BlockRefiner(pool, weight, begin, slopes.tensor().slice_rows(0, count), ordered.gram)
        .run(sweeps);
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
