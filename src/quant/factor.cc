#include "quant/factor.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "base/check.h"
#include "kernels/dense.h"

namespace quern {
namespace {

constexpr int64_t kBlock = 64;
constexpr int64_t kRowsPerChunk = 16;

// r[rows, columns] of a square matrix, as a strided view.
Tensor view(Tensor r, int64_t row, int64_t rows, int64_t column, int64_t columns) {
  return r.slice_rows(row, rows).slice_columns(column, columns);
}

// The same for one diagonal block of at most kBlock.
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
    for (int64_t k = 0; k < j; ++k) row_j[k] = 0.0f;
  }
  return true;
}

// b := b r^-T for one block: column j of b r^T involves columns >= j of b.
void solve_block_transposed(ThreadPool& pool, Tensor b, Tensor r) {
  const int64_t n = r.shape[0];
  pool.for_each_chunk(b.rows(), kRowsPerChunk, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      float* row = b.f32_row(i);
      for (int64_t j = n - 1; j >= 0; --j) {
        const float* r_j = r.f32_row(j);
        double sum = row[j];
        for (int64_t k = j + 1; k < n; ++k) sum -= static_cast<double>(row[k]) * r_j[k];
        row[j] = static_cast<float>(sum / r_j[j]);
      }
    }
  });
}

// b := b r^-1 for one block: column j of b r involves columns <= j of b.
void solve_block(ThreadPool& pool, Tensor b, Tensor r) {
  const int64_t n = r.shape[0];
  pool.for_each_chunk(b.rows(), kRowsPerChunk, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      float* row = b.f32_row(i);
      for (int64_t j = 0; j < n; ++j) {
        const float* r_j = r.f32_row(j);
        row[j] /= r_j[j];
        for (int64_t k = j + 1; k < n; ++k) row[k] -= row[j] * r_j[k];
      }
    }
  });
}

}  // namespace

Result<Unit> factor_upper(ThreadPool& pool, Tensor h) {
  const int64_t n = h.shape[0];
  QUERN_CHECK(h.rank == 2 && h.shape[1] == n);
  for (int64_t end = n; end > 0;) {
    const int64_t begin = std::max<int64_t>(0, end - kBlock);
    const int64_t width = end - begin;
    const Tensor diagonal = view(h, begin, width, begin, width);
    if (!factor_block(diagonal)) {
      return Error{ErrorCode::kInvalidArgument, "the Gram matrix of " + std::to_string(n) +
                                                    " channels is not positive definite"};
    }
    for (int64_t i = begin; i < end; ++i) std::fill_n(h.f32_row(i), begin, 0.0f);
    if (begin > 0) {
      const Tensor above = view(h, 0, begin, begin, width);
      solve_block_transposed(pool, above, diagonal);
      gemm_f32(pool, view(h, 0, begin, 0, begin), above, above,
               {.b = Transpose::kYes, .alpha = -1.0f, .beta = 1.0f});
    }
    end = begin;
  }
  return Unit{};
}

void solve_right(ThreadPool& pool, Tensor b, Tensor r) {
  const int64_t n = r.shape[0];
  const int64_t m = b.rows();
  QUERN_CHECK(b.shape[1] == n);
  const GemmParams subtract_transposed{.b = Transpose::kYes, .alpha = -1.0f, .beta = 1.0f};
  const GemmParams subtract{.alpha = -1.0f, .beta = 1.0f};
  const int64_t last = (n - 1) / kBlock * kBlock;
  for (int64_t begin = last; begin >= 0; begin -= kBlock) {  // b := b r^-T
    const int64_t end = std::min(n, begin + kBlock);
    const Tensor part = b.slice_columns(begin, end - begin);
    if (end < n) {
      gemm_f32(pool, part, b.slice_columns(end, n - end), view(r, begin, end - begin, end, n - end),
               subtract_transposed);
    }
    solve_block_transposed(pool, part, view(r, begin, end - begin, begin, end - begin));
  }
  for (int64_t begin = 0; begin < n; begin += kBlock) {  // b := b r^-1
    const int64_t end = std::min(n, begin + kBlock);
    const Tensor part = b.slice_columns(begin, end - begin);
    if (begin > 0) {
      gemm_f32(pool, part, b.slice_columns(0, begin), view(r, 0, begin, begin, end - begin),
               subtract);
    }
    solve_block(pool, part, view(r, begin, end - begin, begin, end - begin));
  }
  QUERN_CHECK(m == b.rows());
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
