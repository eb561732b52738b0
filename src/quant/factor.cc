#include "quant/factor.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "base/check.h"
#include "base/clones.h"
#include "kernels/dense.h"

namespace quern {
namespace {

constexpr int64_t kBlock = 64;
constexpr int64_t kLanes = 16;  // rows that are solved side by side

// r[rows, columns] of a square matrix, as a strided view.
Tensor view(Tensor r, int64_t row, int64_t rows, int64_t column, int64_t columns) {
  return r.slice_rows(row, rows).slice_columns(column, columns);
}

// A triangular matrix r of more than kBlock columns cut in four, the lower left of which is zero,
// and a matrix b of as many columns cut in two.
struct Halves {
  Tensor top, above, corner;  // of r: upper left, upper right, lower right
  Tensor left, right;         // of b
};

Halves halve(Tensor r, Tensor b) {
  const int64_t n = r.shape[0];
  const int64_t half = (n / 2 + kBlock - 1) / kBlock * kBlock;
  return {.top = view(r, 0, half, 0, half),
          .above = view(r, 0, half, half, n - half),
          .corner = view(r, half, n - half, half, n - half),
          .left = b.slice_columns(0, half),
          .right = b.slice_columns(half, n - half)};
}

// h = r r^T for at most kBlock columns, reading and writing the upper triangle alone.
bool factor_block(Tensor h) {
  const int64_t n = h.shape[0];
  for (int64_t j = n - 1; j >= 0; --j) {
    float* row_j = h.f32_row(j);
    double pivot = row_j[j];
    for (int64_t k = j + 1; k < n; ++k) pivot -= static_cast<double>(row_j[k]) * row_j[k];
    if (!(pivot > 0.0) || !std::isfinite(pivot)) return false;
    row_j[j] = static_cast<float>(std::sqrt(pivot));
    for (int64_t i = 0; i < j; ++i) {
      float* row_i = h.f32_row(i);
      double sum = row_i[j];
      for (int64_t k = j + 1; k < n; ++k) sum -= static_cast<double>(row_i[k]) * row_j[k];
      row_i[j] = static_cast<float>(sum / row_j[j]);
    }
  }
  return true;
}

// kBlock columns of kLanes rows side by side: column j of row i is [j][i].
using RowLanes = std::array<std::array<double, kLanes>, kBlock>;

// x := x r^-T: column j of x r^T involves columns >= j of x.
QUERN_CLONES
void solve_lanes_transposed(RowLanes& x, Tensor r) {
  const auto n = static_cast<size_t>(r.shape[0]);
  for (size_t j = n; j-- > 0;) {
    const float* r_j = r.f32_row(static_cast<int64_t>(j));
    double* sums = x[j].data();
    for (size_t k = j + 1; k < n; ++k) {
      const auto weight = static_cast<double>(r_j[k]);
      for (size_t i = 0; i < kLanes; ++i) sums[i] -= x[k][i] * weight;
    }
    const auto pivot = static_cast<double>(r_j[j]);
    for (size_t i = 0; i < kLanes; ++i) sums[i] /= pivot;
  }
}

// x := x r^-1: column j of x r involves columns <= j of x.
QUERN_CLONES
void solve_lanes(RowLanes& x, Tensor r) {
  const auto n = static_cast<size_t>(r.shape[0]);
  for (size_t j = 0; j < n; ++j) {
    const float* r_j = r.f32_row(static_cast<int64_t>(j));
    const auto pivot = static_cast<double>(r_j[j]);
    for (size_t i = 0; i < kLanes; ++i) x[j][i] /= pivot;
    for (size_t k = j + 1; k < n; ++k) {
      const auto weight = static_cast<double>(r_j[k]);
      for (size_t i = 0; i < kLanes; ++i) x[k][i] -= x[j][i] * weight;
    }
  }
}

// Solves for all rows of b: [rows, at most kBlock].
void solve_block(ThreadPool& pool, Tensor b, Tensor r, void (*solve)(RowLanes&, Tensor)) {
  pool.for_each_chunk(b.rows(), kLanes, [&](int64_t begin, int64_t end, int) {
    RowLanes x{};
    for (int64_t row = begin; row < end; ++row) {
      for (size_t j = 0; j < static_cast<size_t>(b.shape[1]); ++j)
        x[j][static_cast<size_t>(row - begin)] = static_cast<double>(b.f32_row(row)[j]);
    }
    solve(x, r);
    for (int64_t row = begin; row < end; ++row) {
      for (size_t j = 0; j < static_cast<size_t>(b.shape[1]); ++j)
        b.f32_row(row)[j] = static_cast<float>(x[j][static_cast<size_t>(row - begin)]);
    }
  });
}

// b := b r^-T.
void solve_transposed(ThreadPool& pool, Tensor b, Tensor r) {
  if (r.shape[0] <= kBlock) return solve_block(pool, b, r, solve_lanes_transposed);
  const Halves h = halve(r, b);
  solve_transposed(pool, h.right, h.corner);
  gemm_f32(pool, h.left, h.right, h.above, {.b = Transpose::kYes, .alpha = -1.0f, .beta = 1.0f});
  solve_transposed(pool, h.left, h.top);
}

// b := b r^-1.
void solve(ThreadPool& pool, Tensor b, Tensor r) {
  if (r.shape[0] <= kBlock) return solve_block(pool, b, r, solve_lanes);
  const Halves h = halve(r, b);
  solve(pool, h.left, h.top);
  gemm_f32(pool, h.right, h.left, h.above, {.alpha = -1.0f, .beta = 1.0f});
  solve(pool, h.right, h.corner);
}

// The upper triangle of h := r. Returns whether every pivot was positive.
bool factor(ThreadPool& pool, Tensor h) {
  if (h.shape[0] <= kBlock) return factor_block(h);
  const Halves halves = halve(h, h);
  if (!factor(pool, halves.corner)) return false;
  solve_transposed(pool, halves.above, halves.corner);
  gemm_f32(pool, halves.top, halves.above, halves.above,
           {.b = Transpose::kYes, .alpha = -1.0f, .beta = 1.0f, .triangle = Triangle::kUpper});
  return factor(pool, halves.top);
}

}  // namespace

Result<Unit> factor_upper(ThreadPool& pool, Tensor h) {
  const int64_t n = h.shape[0];
  QUERN_CHECK(h.rank == 2 && h.shape[1] == n);
  if (!factor(pool, h)) {
    return Error{ErrorCode::kInvalidArgument,
                 "the Gram matrix of " + std::to_string(n) + " channels is not positive definite"};
  }
  for (int64_t i = 0; i < n; ++i) std::fill_n(h.f32_row(i), i, 0.0f);
  return Unit{};
}

void solve_right(ThreadPool& pool, Tensor b, Tensor r) {
  QUERN_CHECK(b.shape[1] == r.shape[0]);
  solve_transposed(pool, b, r);
  solve(pool, b, r);
}

void damp(Tensor h, float share) {
  const int64_t n = h.shape[0];
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += h.f32_row(i)[i];
  constexpr double kFloor = 1e-12;
  const double added = std::max(share * sum / static_cast<double>(n), kFloor);
  for (int64_t i = 0; i < n; ++i) h.f32_row(i)[i] += static_cast<float>(added);
}

}  // namespace quern
