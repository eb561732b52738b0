#include "kernels/ref/elementwise.h"

#include <cmath>

#include "base/check.h"

namespace quern::ref {
namespace {

// The last dimension, and how many of it a row of the first dimension holds.
int64_t width_of(const Tensor& x) { return x.shape[static_cast<size_t>(x.rank - 1)]; }

void norm_row(float* out, const float* x, std::span<const float> weight, float eps) {
  double sum = 0;
  for (size_t i = 0; i < weight.size(); ++i) sum += static_cast<double>(x[i]) * x[i];
  const double mean = sum / static_cast<double>(weight.size());
  const double factor = 1.0 / std::sqrt(mean + static_cast<double>(eps));
  for (size_t i = 0; i < weight.size(); ++i) {
    out[i] = static_cast<float>(x[i] * factor * static_cast<double>(weight[i]));
  }
}

void check_same_shape(const Tensor& a, const Tensor& b) {
  QUERN_CHECK(a.rank == b.rank && a.shape == b.shape);
}

// Calls body(row) for every row, on the pool.
void for_each_row(ThreadPool& pool, int64_t rows, FunctionRef<void(int64_t)> body) {
  pool.for_each_chunk(rows, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) body(row);
  });
}

}  // namespace

void rms_norm(ThreadPool& pool, Tensor out, Tensor x, std::span<const float> weight, float eps) {
  check_same_shape(out, x);
  const int64_t width = width_of(x);
  QUERN_CHECK(width == static_cast<int64_t>(weight.size()));
  for_each_row(pool, x.rows(), [&](int64_t row) {
    for (int64_t i = 0; i < x.row_elements(); i += width) {
      norm_row(out.f32_row(row) + i, x.f32_row(row) + i, weight, eps);
    }
  });
}

void add_rms_norm(
    ThreadPool& pool, Tensor out, Tensor x, Tensor y, std::span<const float> weight, float eps) {
  add(pool, x, y);
  rms_norm(pool, out, x, weight, eps);
}

void add(ThreadPool& pool, Tensor x, Tensor y) {
  check_same_shape(x, y);
  for_each_row(pool, x.rows(), [&](int64_t row) {
    float* sum = x.f32_row(row);
    const float* term = y.f32_row(row);
    for (int64_t i = 0; i < x.row_elements(); ++i) sum[i] += term[i];
  });
}

void rope(ThreadPool& pool,
          Tensor x,
          std::span<const int32_t> positions,
          const RopeParams& params) {
  const auto half = static_cast<int64_t>(params.inverse_frequencies.size());
  const int64_t head_dim = width_of(x);
  QUERN_CHECK(x.rank == 3 && x.rows() == static_cast<int64_t>(positions.size()));
  QUERN_CHECK(2 * half <= head_dim);
  for_each_row(pool, x.rows(), [&](int64_t row) {
    const double position = positions[static_cast<size_t>(row)];
    const double factor = static_cast<double>(params.attention_factor);
    for (int64_t i = 0; i < half; ++i) {
      const double angle = position * params.inverse_frequencies[static_cast<size_t>(i)];
      const double c = std::cos(angle) * factor;
      const double s = std::sin(angle) * factor;
      for (float* head = x.f32_row(row); head < x.f32_row(row) + x.row_elements();
           head += head_dim) {
        const double a = head[i];
        const double b = head[i + half];
        head[i] = static_cast<float>(a * c - b * s);
        head[i + half] = static_cast<float>(b * c + a * s);
      }
    }
  });
}

void silu_multiply(ThreadPool& pool, Tensor out, Tensor gate_up) {
  const int64_t width = out.row_elements();
  QUERN_CHECK(out.rows() == gate_up.rows() && gate_up.row_elements() == 2 * width);
  for_each_row(pool, out.rows(), [&](int64_t row) {
    const float* gate = gate_up.f32_row(row);
    const float* up = gate + width;
    for (int64_t i = 0; i < width; ++i) {
      const double g = gate[i];
      out.f32_row(row)[i] = static_cast<float>(g / (1.0 + std::exp(-g)) * up[i]);
    }
  });
}

}  // namespace quern::ref
