#include "quant/statistics.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "kernels/dense.h"
#include "quant/objective.h"

namespace quern {
namespace {

constexpr int64_t kColumnsPerChunk = 64;
constexpr int64_t kRowsPerChunk = 64;

// out = x, each row times the root of its weight, so that products carry the weight itself.
Tensor weigh_rows(FloatMatrix& out, Tensor x, const std::vector<float>& weights) {
  if (out.rows() < x.rows()) out = FloatMatrix(x.rows(), x.shape[1]);
  for (int64_t i = 0; i < x.rows(); ++i) {
    const float root = std::sqrt(weights[static_cast<size_t>(i)]);
    for (int64_t c = 0; c < x.shape[1]; ++c) out.row(i)[c] = x.f32_row(i)[c] * root;
  }
  return out.tensor().slice_rows(0, x.rows());
}

void add_magnitudes(ThreadPool& pool, std::vector<double>& sums, Tensor x) {
  const auto columns = static_cast<int64_t>(sums.size());
  pool.for_each_chunk(columns, kColumnsPerChunk, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = 0; row < x.rows(); ++row) {
      const float* values = x.f32_row(row);
      for (int64_t c = begin; c < end; ++c)
        sums[static_cast<size_t>(c)] += static_cast<double>(std::fabs(values[c]));
    }
  });
}

void add_squares(ThreadPool& pool, std::vector<double>& sums, Tensor x) {
  const auto columns = static_cast<int64_t>(sums.size());
  pool.for_each_chunk(columns, kColumnsPerChunk, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = 0; row < x.rows(); ++row) {
      const float* values = x.f32_row(row);
      for (int64_t c = begin; c < end; ++c)
        sums[static_cast<size_t>(c)] += static_cast<double>(values[c] * values[c]);
    }
  });
}

void scale_all(ThreadPool& pool, FloatMatrix& matrix, float factor) {
  pool.for_each_chunk(matrix.rows(), kRowsPerChunk, [&](int64_t begin, int64_t end, int) {
    float* values = matrix.data();
    for (int64_t i = begin * matrix.columns(); i < end * matrix.columns(); ++i) values[i] *= factor;
  });
}

}  // namespace

Statistics::Statistics(int64_t inputs, int64_t targets)
    : gram(inputs, inputs),
      cross(targets, targets == 0 ? 0 : inputs),
      magnitude(static_cast<size_t>(inputs), 0.0),
      target_squares(static_cast<size_t>(targets), 0.0) {}

void Statistics::add(ThreadPool& pool,
                     Tensor x,
                     const Tensor* t,
                     const std::vector<float>& weights) {
  QUERN_CHECK((t != nullptr) == (cross.rows() > 0));
  tokens += static_cast<double>(x.rows());
  add_magnitudes(pool, magnitude, x);
  Tensor target = t == nullptr ? Tensor() : *t;
  if (weights.empty()) {
    weight += static_cast<double>(x.rows());
  } else {
    for (const float w : weights) weight += static_cast<double>(w);
    x = weigh_rows(weighted_x_, x, weights);
    if (t != nullptr) target = weigh_rows(weighted_t_, target, weights);
  }
  gemm_f32(pool, gram.tensor(), x, x,
           {.a = Transpose::kYes,
            .beta = 1.0f,
            .triangle = Triangle::kUpper,
            .operands = Operands::kBF16});
  if (t == nullptr) return;
  add_squares(pool, target_squares, target);
  gemm_f32(pool, cross.tensor(), target, x,
           {.a = Transpose::kYes, .beta = 1.0f, .operands = Operands::kBF16});
}

void Statistics::finish(ThreadPool& pool) {
  weighted_x_ = FloatMatrix();
  weighted_t_ = FloatMatrix();
  if (tokens == 0) return;
  const double factor = 1.0 / weight;
  mirror_upper(pool, gram.tensor());
  scale_all(pool, gram, static_cast<float>(factor));
  scale_all(pool, cross, static_cast<float>(factor));
  for (double& value : target_squares) value *= factor;
  for (double& value : magnitude) value /= tokens;
}

void Statistics::divide_inputs(ThreadPool& pool, const std::vector<float>& scales) {
  std::vector<float> inverse(scales.size());
  for (size_t i = 0; i < scales.size(); ++i) {
    inverse[i] = 1.0f / scales[i];
    magnitude[i] /= static_cast<double>(scales[i]);
  }
  scale_columns(pool, gram.tensor(), inverse);
  pool.for_each_chunk(gram.rows(), kRowsPerChunk, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const float factor = inverse[static_cast<size_t>(i)];
      for (int64_t k = 0; k < gram.columns(); ++k) gram.row(i)[k] *= factor;
    }
  });
  if (cross.rows() > 0) scale_columns(pool, cross.tensor(), inverse);
}

}  // namespace quern
