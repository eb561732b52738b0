#include "kernels/dense.h"

#include <algorithm>
#include <cstdint>
#include <memory>

#include "base/clones.h"
#include "base/float16.h"
#include "kernels/cpu/dense_ops.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/packed.h"

namespace quern {
namespace {

using cpu::kPanelRows;

// Slices of the depth, in numbers of 4 bytes: 64 columns x 512 = 128 KB of L2, 6 rows 12 KB of L1.
constexpr int64_t kDepth = 512;
constexpr int64_t kRowBlock = 1536;  // x 512 x 4 bytes = 3 MB of packed rows at a time
constexpr int64_t kRowsPerJob = 96;  // x 64 columns x 512: about 30 microseconds
constexpr int kPanels = 4;           // panels of 16 columns of a strip
constexpr int64_t kStrip = kPanels * kPanelRows;

// Memory that is not zeroed, begins on a cache line and returns to the heap.
class Scratch {
 public:
  explicit Scratch(int64_t count)
      : owned_(std::make_unique_for_overwrite<float[]>(static_cast<size_t>(count) + 16)) {
    const auto address = reinterpret_cast<uintptr_t>(owned_.get());
    data_ = owned_.get() + (64 - address % 64) % 64 / sizeof(float);
  }

  float* data() const { return data_; }

 private:
  std::unique_ptr<float[]> owned_;
  float* data_ = nullptr;
};

// op(x) of a stored matrix: element (i, j).
struct View {
  const float* data;
  int64_t row_step;
  int64_t column_step;

  const float* at(int64_t i, int64_t j) const { return data + i * row_step + j * column_step; }
};

View view_of(Tensor x, Transpose transpose) {
  QUERN_CHECK(x.rank == 2);
  if (transpose == Transpose::kYes) return {x.f32(), 1, x.row_stride};
  return {x.f32(), x.row_stride, 1};
}

int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// Columns [column, column + width) of a slice, of which `valid` exist. In row k those before
// column k - diagonal are zero.
struct PackedColumns {
  int64_t depth;
  int64_t column;
  int width;
  int64_t valid;
  int64_t diagonal = INT64_MAX;

  // The first that counts.
  int64_t begin(int64_t k) const {
    return diagonal == INT64_MAX ? 0 : std::clamp<int64_t>(k - diagonal - column, 0, valid);
  }
};

// to[k][width] = x(k, column + 0 .. width).
void pack_slice(float* to, const View& x, const PackedColumns& c) {
  for (int64_t k = 0; k < c.depth; ++k, to += c.width) {
    const float* from = x.at(k, c.column);
    const int64_t begin = c.begin(k);
    for (int64_t j = 0; j < begin; ++j) to[j] = 0;
    for (int64_t j = begin; j < c.valid; ++j) to[j] = from[j * x.column_step];
    for (int64_t j = c.valid; j < c.width; ++j) to[j] = 0;
  }
}

QUERN_CLONES
void pack_pairs_row(uint32_t* to, const float* first, const float* second, int64_t count) {
  for (int64_t j = 0; j < count; ++j) to[j] = bf16_pair(first[j], second[j]);
}

// to[k / 2][width] = x(k, column + 0 .. width) and x(k + 1, ...) in pairs, zero past the depth.
void pack_pairs(float* to_floats, const View& x, const PackedColumns& c) {
  auto* to = reinterpret_cast<uint32_t*>(to_floats);
  float rows[2][kPanelRows];
  QUERN_CHECK(c.width <= kPanelRows);
  const bool direct = x.column_step == 1 && c.diagonal == INT64_MAX;
  for (int64_t k = 0; k < c.depth; k += 2, to += c.width) {
    const float* from[2];
    for (int i = 0; i < 2; ++i) {
      const bool exists = k + i < c.depth;
      from[i] = exists ? x.at(k + i, c.column) : nullptr;
      if (exists && direct) continue;
      for (int64_t j = 0; j < c.valid; ++j)
        rows[i][j] = exists && j >= c.begin(k + i) ? from[i][j * x.column_step] : 0;
      from[i] = rows[i];
    }
    pack_pairs_row(to, from[0], from[1], c.valid);
    for (int64_t j = c.valid; j < c.width; ++j) to[j] = 0;
  }
}

struct Product {
  ThreadPool& pool;
  const cpu::DenseOps& ops;
  View a;  // (row, k)
  View b;  // (k, column)
  Tensor c;
  int64_t rows, columns, depth;
  float alpha, beta;
  Triangle triangle;
  Factor factor;
  bool bf16;  // in pairs

  void pack(float* to, const View& x, const PackedColumns& slice) const {
    bf16 ? pack_pairs(to, x, slice) : pack_slice(to, x, slice);
  }
};

// Floats that `count` columns of a slice take.
int64_t packed_floats(const Product& p, int64_t count, int64_t depth) {
  return p.bf16 ? count * ((depth + 1) / 2) : count * depth;
}

// One slice of the depth: packed columns and rows, and where they came from.
struct Slice {
  const float* columns;
  const float* rows;
  int64_t begin;
  int64_t depth;
  int64_t row_begin;
  int64_t row_count;
};

void pack_columns(const Product& p, float* to, int64_t begin, int64_t depth) {
  const View b{p.b.at(begin, 0), p.b.row_step, p.b.column_step};
  const int64_t panels = round_up(p.columns, kStrip) / kPanelRows;
  p.pool.for_each_chunk(panels, 4, [&](int64_t first, int64_t last, int) {
    for (int64_t panel = first; panel < last; ++panel) {
      const int64_t column = panel * kPanelRows;
      const int64_t valid = std::clamp<int64_t>(p.columns - column, 0, kPanelRows);
      p.pack(to + packed_floats(p, column, depth), b,
             {.depth = depth,
              .column = column,
              .width = kPanelRows,
              .valid = valid,
              .diagonal = p.factor == Factor::kUpper ? -begin : INT64_MAX});
    }
  });
}

void pack_rows(const Product& p, float* to, const Slice& slice) {
  const View a{p.a.at(slice.row_begin, slice.begin), p.a.column_step, p.a.row_step};
  const int width = p.ops.max_columns;
  p.pool.for_each_chunk(slice.row_count, width, [&](int64_t first, int64_t last, int) {
    const auto valid = static_cast<int>(last - first);
    p.pack(to + packed_floats(p, first, slice.depth), a,
           {.depth = slice.depth, .column = first, .width = valid, .valid = valid});
  });
}

// c = beta c + alpha tile, where beta counts once, for the first slice of the depth.
void store_tile(const Product& p,
                const float* tile,
                int64_t row,
                int64_t row_count,
                int64_t column,
                const Slice& slice) {
  const int64_t count = std::min(kStrip, p.columns - column);
  for (int64_t i = 0; i < row_count; ++i) {
    float* c = p.c.f32_row(row + i) + column;
    const float* from = tile + i * kStrip;
    if (slice.begin > 0 || p.beta == 1.0f) {
      for (int64_t j = 0; j < count; ++j) c[j] += p.alpha * from[j];
    } else if (p.beta == 0) {
      for (int64_t j = 0; j < count; ++j) c[j] = p.alpha * from[j];
    } else {
      for (int64_t j = 0; j < count; ++j) c[j] = p.beta * c[j] + p.alpha * from[j];
    }
  }
}

// Where a tile will be added: fetched while it is computed.
void fetch_output(const Product& p, int64_t row, int64_t row_count, int64_t column) {
  constexpr int64_t kLine = 64 / sizeof(float);
  const int64_t count = std::min(kStrip, p.columns - column);
  for (int64_t i = 0; i < row_count; ++i) {
    const float* c = p.c.f32_row(row + i) + column;
    for (int64_t j = 0; j < count; j += kLine) __builtin_prefetch(c + j, 1);
  }
}

// Rows [begin, end) of the slice times the strip of 64 columns that begins at `column`.
void multiply_strip(
    const Product& p, const Slice& slice, int64_t column, int64_t begin, int64_t end) {
  alignas(64) float tile[cpu::kMaxDenseColumns * kStrip];
  const WeightFormat format = p.bf16 ? WeightFormat::kBF16 : WeightFormat::kF32;
  const auto& kernels = p.ops.kernels[static_cast<int>(format)];
  // Below the diagonal of an upper factor nothing is to be added.
  const int64_t used = p.factor == Factor::kUpper
                           ? std::min(slice.depth, column + kStrip - slice.begin)
                           : slice.depth;
  if (used <= 0) return;
  for (int64_t row = begin; row < end; row += p.ops.max_columns) {
    const int64_t count = std::min<int64_t>(p.ops.max_columns, end - row);
    if (p.triangle == Triangle::kUpper && column + kStrip <= slice.row_begin + row) continue;
    fetch_output(p, slice.row_begin + row, count, column);
    int choice = cpu::kDensePanelChoices - 1;
    while (kernels[choice][count - 1] == nullptr) --choice;
    const int64_t width = (int64_t{1} << choice) * kPanelRows;
    for (int64_t j = 0; j < kStrip; j += width) {
      kernels[choice][count - 1]({
          .weights = reinterpret_cast<const std::byte*>(slice.columns +
                                                        packed_floats(p, column + j, slice.depth)),
          .panel_bytes = packed_floats(p, kPanelRows, slice.depth) * 4,
          .depth = p.bf16 ? (used + 1) / 2 * 2 : used,
          .x = reinterpret_cast<const std::byte*>(slice.rows + packed_floats(p, row, slice.depth)),
          .y = tile + j,
          .y_stride = kStrip,
      });
    }
    store_tile(p, tile, slice.row_begin + row, count, column, slice);
  }
}

void multiply_slice(const Product& p, const Slice& slice) {
  // Jobs end where a tile of packed rows ends.
  const int64_t job_rows = kRowsPerJob / p.ops.max_columns * p.ops.max_columns;
  const int64_t strips = round_up(p.columns, kStrip) / kStrip;
  const int64_t jobs = round_up(slice.row_count, job_rows) / job_rows;
  // Jobs of one strip follow one another: its columns stay in the second-level cache.
  p.pool.for_each_chunk(strips * jobs, 1, [&](int64_t first, int64_t last, int) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t begin = i % jobs * job_rows;
      multiply_strip(p, slice, i / jobs * kStrip, begin,
                     std::min(begin + job_rows, slice.row_count));
    }
  });
}

void multiply(const Product& p) {
  const int64_t most = p.bf16 ? 2 * kDepth : kDepth;
  const int64_t depth = std::min(most, p.depth);
  const Scratch columns(packed_floats(p, round_up(p.columns, kStrip), depth));
  const Scratch rows(packed_floats(p, std::min(kRowBlock, p.rows), depth));
  for (int64_t k = 0; k < p.depth; k += most) {
    Slice slice{.columns = columns.data(),
                .rows = rows.data(),
                .begin = k,
                .depth = std::min(most, p.depth - k),
                .row_begin = 0,
                .row_count = 0};
    pack_columns(p, columns.data(), k, slice.depth);
    for (int64_t row = 0; row < p.rows; row += kRowBlock) {
      slice.row_begin = row;
      slice.row_count = std::min(kRowBlock, p.rows - row);
      pack_rows(p, rows.data(), slice);
      multiply_slice(p, slice);
    }
  }
}

void scale(Tensor c, float beta) {
  for (int64_t i = 0; i < c.rows(); ++i) {
    float* row = c.f32_row(i);
    for (int64_t j = 0; j < c.shape[1]; ++j) row[j] = beta == 0 ? 0 : beta * row[j];
  }
}

}  // namespace

void gemm_f32(ThreadPool& pool, Tensor c, Tensor a, Tensor b, const GemmParams& params) {
  QUERN_CHECK(a.rank == 2 && b.rank == 2 && c.rank == 2);
  const bool a_flipped = params.a == Transpose::kYes;
  const bool b_flipped = params.b == Transpose::kYes;
  const int64_t depth = a_flipped ? a.shape[0] : a.shape[1];
  QUERN_CHECK((b_flipped ? b.shape[1] : b.shape[0]) == depth);
  QUERN_CHECK((a_flipped ? a.shape[1] : a.shape[0]) == c.shape[0]);
  QUERN_CHECK((b_flipped ? b.shape[0] : b.shape[1]) == c.shape[1]);
  QUERN_CHECK(params.triangle == Triangle::kAll || c.shape[0] == c.shape[1]);
  if (c.elements() == 0) return;
  if (depth == 0) return scale(c, params.beta);
  QUERN_CHECK(params.factor == Factor::kWhole || depth == c.shape[1]);
  const cpu::DenseOps& ops = cpu::table_for(cpu::kDenseOps, cpu::best_isa());
  multiply({.pool = pool,
            .ops = ops,
            .a = view_of(a, params.a),
            .b = view_of(b, params.b),
            .c = c,
            .rows = c.shape[0],
            .columns = c.shape[1],
            .depth = depth,
            .alpha = params.alpha,
            .beta = params.beta,
            .triangle = params.triangle,
            .factor = params.factor,
            .bf16 = params.operands == Operands::kBF16 && ops.pairs});
}

void mirror_upper(ThreadPool& pool, Tensor x) {
  QUERN_CHECK(x.rank == 2 && x.shape[0] == x.shape[1]);
  constexpr int64_t kBlock = 64;
  pool.for_each_chunk(x.rows(), kBlock, [&](int64_t begin, int64_t end, int) {
    for (int64_t column = 0; column < end; column += kBlock) {
      for (int64_t i = begin; i < end; ++i) {
        float* row = x.f32_row(i);
        for (int64_t j = column; j < std::min(column + kBlock, i); ++j) row[j] = x.f32_row(j)[i];
      }
    }
  });
}

}  // namespace quern
