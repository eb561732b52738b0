#include "quant/objective.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "kernels/dense.h"

namespace quern {
namespace {

constexpr int64_t kBlockRows = 512;  // rows whose products are held at a time
constexpr int64_t kRowsPerChunk = 16;

// d (gram d - 2 b), in double. `product` is d times what of gram does not lie below the diagonal,
// which counts every number beside it half.
double row_cost(const float* d, const float* product, const float* pull, Tensor gram) {
  double sum = 0;
  for (int64_t i = 0; i < gram.shape[1]; ++i) {
    float slope = 2.0f * product[i] - gram.f32_row(i)[i] * d[i];
    if (pull != nullptr) slope -= 2.0f * pull[i];
    sum += static_cast<double>(d[i]) * static_cast<double>(slope);
  }
  return sum;
}

}  // namespace

std::vector<double> row_costs(
    ThreadPool& pool, Tensor d, Tensor gram, const Tensor* pull, Operands operands) {
  const int64_t n = d.shape[1];
  QUERN_CHECK(gram.shape[0] == n && gram.shape[1] == n);
  std::vector<double> costs(static_cast<size_t>(d.rows()));
  FloatMatrix product(std::min(kBlockRows, d.rows()), n);
  for (int64_t begin = 0; begin < d.rows(); begin += kBlockRows) {
    const int64_t count = std::min(kBlockRows, d.rows() - begin);
    gemm_f32(pool, product.tensor().slice_rows(0, count), d.slice_rows(begin, count), gram,
             {.operands = operands, .factor = Factor::kUpper});
    pool.for_each_chunk(count, kRowsPerChunk, [&](int64_t first, int64_t end, int) {
      for (int64_t i = first; i < end; ++i) {
        const float* b = pull == nullptr ? nullptr : pull->f32_row(begin + i);
        costs[static_cast<size_t>(begin + i)] =
            row_cost(d.f32_row(begin + i), product.row(i), b, gram);
      }
    });
  }
  return costs;
}

double total_cost(ThreadPool& pool, Tensor d, Tensor gram, Operands operands) {
  double sum = 0;
  for (const double cost : row_costs(pool, d, gram, nullptr, operands)) sum += cost;
  return sum;
}

double mean_signal(ThreadPool& pool, Tensor w, Tensor gram) {
  return total_cost(pool, w, gram) / static_cast<double>(w.rows());
}

double sum_of_squares(Tensor x) {
  double sum = 0;
  for (int64_t i = 0; i < x.rows(); ++i) {
    const float* row = x.f32_row(i);
    for (int64_t c = 0; c < x.shape[1]; ++c)
      sum += static_cast<double>(row[c]) * static_cast<double>(row[c]);
  }
  return sum;
}

FloatMatrix copy_of(Tensor x) {
  FloatMatrix copy(x.shape[0], x.shape[1]);
  for (int64_t i = 0; i < x.rows(); ++i)
    std::memcpy(copy.row(i), x.f32_row(i), static_cast<size_t>(x.shape[1]) * sizeof(float));
  return copy;
}

void copy_into(ThreadPool& pool, Tensor out, Tensor x) {
  pool.for_each_chunk(x.rows(), kRowsPerChunk, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i)
      std::memcpy(out.f32_row(i), x.f32_row(i), static_cast<size_t>(x.shape[1]) * sizeof(float));
  });
}

FloatMatrix sample_rows(Tensor x, int64_t most) {
  FloatMatrix sample(std::min(most, x.rows()), x.shape[1]);
  for (int64_t i = 0; i < sample.rows(); ++i)
    std::copy_n(x.f32_row(sampled_row(i, sample.rows(), x.rows())), x.shape[1], sample.row(i));
  return sample;
}

void scale_columns(ThreadPool& pool, Tensor x, const std::vector<float>& factors) {
  QUERN_CHECK(static_cast<size_t>(x.shape[1]) == factors.size());
  pool.for_each_chunk(x.rows(), kRowsPerChunk, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      float* row = x.f32_row(i);
      for (size_t c = 0; c < factors.size(); ++c) row[c] *= factors[c];
    }
  });
}

void subtract(ThreadPool& pool, Tensor out, Tensor x) {
  pool.for_each_chunk(out.rows(), kRowsPerChunk, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      float* to = out.f32_row(i);
      const float* from = x.f32_row(i);
      for (int64_t c = 0; c < out.shape[1]; ++c) to[c] -= from[c];
    }
  });
}

}  // namespace quern
