#include "quant/clip_search.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "kernels/dense.h"
#include "quant/lanes.h"

namespace quern {
namespace {

constexpr int kSteps = 11;  // 1.0, 0.95, ..., 0.5
constexpr float kStep = 0.05f;
constexpr int64_t kRowsPerChunk = 16;
constexpr int64_t kBlockRows = 1024;  // rows whose errors are held at a time

struct Candidate {
  float low = 1.0f;   // share of the range's lower end that is kept
  float high = 1.0f;  // and of the upper
};

// The state of the search over one group of all rows in a block.
struct Search {
  ThreadPool& pool;
  Tensor w{};     // [rows, group_size], strided
  Tensor gram{};  // [group_size, group_size]
  FloatMatrix errors;
  FloatMatrix products;
  std::vector<Range> ranges{};
  std::vector<Candidate> best{};
  std::vector<double> cost{};
};

QUERN_CLONES
void rounding_errors(float* out, const float* w, GroupGrid grid, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = nearest(w[i], grid) - w[i];
}

// Tries candidate(row) for every row and keeps it where it is better.
template <typename CandidateOf>
void attempt(Search& search, CandidateOf&& candidate_of) {
  const int64_t rows = search.w.rows();
  const int64_t n = search.w.shape[1];
  const Tensor errors = search.errors.tensor().slice_rows(0, rows);
  const Tensor products = search.products.tensor().slice_rows(0, rows);
  const auto grid_of = [&](int64_t row, Candidate c) {
    const Range range = search.ranges[static_cast<size_t>(row)];
    return fit_grid(range.low * c.low, range.high * c.high);
  };
  search.pool.for_each_chunk(rows, kRowsPerChunk, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const GroupGrid grid = grid_of(row, candidate_of(row));
      rounding_errors(errors.f32_row(row), search.w.f32_row(row), grid, n);
    }
  });
  gemm_f32(search.pool, products, errors, search.gram, {});
  search.pool.for_each_chunk(rows, kRowsPerChunk, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const float sum = dot(errors.f32_row(row), products.f32_row(row), n);
      const auto index = static_cast<size_t>(row);
      if (static_cast<double>(sum) >= search.cost[index]) continue;
      search.cost[index] = static_cast<double>(sum);
      search.best[index] = candidate_of(row);
    }
  });
}

void search_group(Search& search) {
  const auto rows = static_cast<size_t>(search.w.rows());
  search.ranges.resize(rows);
  search.best.assign(rows, Candidate{});
  search.cost.assign(rows, INFINITY);
  for (size_t row = 0; row < rows; ++row) {
    search.ranges[row] = range_of(search.w.f32_row(static_cast<int64_t>(row)), search.w.shape[1]);
  }
  for (int step = 0; step < kSteps; ++step) {
    const float share = 1.0f - kStep * static_cast<float>(step);
    attempt(search, [&](int64_t) { return Candidate{share, share}; });
  }
  // Each end alone, around the best common share.
  const std::vector<Candidate> common = search.best;
  for (const float change : {-2 * kStep, -kStep, kStep, 2 * kStep}) {
    attempt(search, [&](int64_t row) {
      const Candidate c = common[static_cast<size_t>(row)];
      return Candidate{std::min(c.low + change, 1.0f), c.high};
    });
    attempt(search, [&](int64_t row) {
      const Candidate c = common[static_cast<size_t>(row)];
      return Candidate{c.low, std::min(c.high + change, 1.0f)};
    });
  }
}

// A row whose size changed by more than this was no matter of clipping.
constexpr float kLargestRestored = 2.0f;

void scale_row(GroupedWeight& weight, int64_t row, float factor) {
  for (int64_t g = 0; g < weight.groups(); ++g) {
    const GroupGrid grid = grid_at(weight, row, g);
    set_grid(weight, row, g, {.scale = nearest_scale(grid.scale * factor), .zero = grid.zero});
  }
}

}  // namespace

std::vector<GroupGrid> search_grids(ThreadPool& pool, Tensor w, Tensor gram, int group_size) {
  const int64_t groups = w.shape[1] / group_size;
  QUERN_CHECK(groups * group_size == w.shape[1] && gram.shape[0] == w.shape[1]);
  std::vector<GroupGrid> grids(static_cast<size_t>(w.rows() * groups));
  const int64_t block = std::min(kBlockRows, w.rows());
  Search search{.pool = pool,
                .errors = FloatMatrix(block, group_size),
                .products = FloatMatrix(block, group_size)};
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t at = g * group_size;
    search.gram = gram.slice_rows(at, group_size).slice_columns(at, group_size);
    for (int64_t begin = 0; begin < w.rows(); begin += block) {
      const int64_t count = std::min(block, w.rows() - begin);
      search.w = w.slice_rows(begin, count).slice_columns(at, group_size);
      search_group(search);
      for (int64_t row = 0; row < count; ++row) {
        const auto index = static_cast<size_t>(row);
        const Range range = search.ranges[index];
        const Candidate c = search.best[index];
        grids[static_cast<size_t>((begin + row) * groups + g)] =
            fit_grid(range.low * c.low, range.high * c.high);
      }
    }
  }
  return grids;
}

GroupedWeight round_to_grids(ThreadPool& pool,
                             Tensor w,
                             const std::vector<GroupGrid>& grids,
                             int group_size) {
  GroupedWeight out = empty_grouped(w.rows(), w.shape[1], group_size);
  pool.for_each_chunk(out.rows, kRowsPerChunk, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t g = 0; g < out.groups(); ++g) {
        const GroupGrid grid = grids[static_cast<size_t>(row * out.groups() + g)];
        encode_group(out, row, g, w.f32_row(row) + g * group_size, grid);
      }
    }
  });
  return out;
}

void restore_size(ThreadPool& pool, GroupedWeight& weight, Tensor w, Tensor gram) {
  const int64_t n = weight.columns;
  QUERN_CHECK(w.rows() == weight.rows && gram.shape[0] == n);
  FloatMatrix products(std::min(kBlockRows, weight.rows), n);
  for (int64_t first = 0; first < weight.rows; first += kBlockRows) {
    const int64_t count = std::min(kBlockRows, weight.rows - first);
    gemm_f32(pool, products.tensor().slice_rows(0, count), w.slice_rows(first, count), gram, {});
    pool.for_each_chunk(count, kRowsPerChunk, [&](int64_t begin, int64_t end, int) {
      std::vector<float> v(static_cast<size_t>(n));
      for (int64_t i = begin; i < end; ++i) {
        widen_row(weight, first + i, v.data());
        const float wanted = dot(w.f32_row(first + i), products.row(i), n);
        const float factor = wanted / dot(v.data(), products.row(i), n);
        if (factor > 1.0f / kLargestRestored && factor < kLargestRestored)
          scale_row(weight, first + i, factor);
      }
    });
  }
}

}  // namespace quern
