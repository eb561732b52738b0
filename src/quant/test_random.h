// Random problems for the tests of this folder, from a seed.
#pragma once

#include <cmath>
#include <vector>

#include "base/random.h"
#include "base/thread_pool.h"
#include "kernels/dense.h"
#include "tensor/buffer.h"

namespace quern::test {

inline float normal(uint64_t seed, uint64_t stream, uint64_t position) {
  const double u = random_uniform(seed, stream, 2 * position);
  const double v = random_uniform(seed, stream, 2 * position + 1);
  return static_cast<float>(std::sqrt(-2.0 * std::log(1.0 - u)) * std::cos(6.283185307179586 * v));
}

inline FloatMatrix normal_matrix(uint64_t seed, int64_t rows, int64_t columns) {
  FloatMatrix x(rows, columns);
  for (int64_t i = 0; i < rows * columns; ++i)
    x.data()[i] = normal(seed, 1, static_cast<uint64_t>(i));
  return x;
}

// Inputs as layers see them: correlated channels, a few of them far larger than the others.
inline FloatMatrix activations(ThreadPool& pool, uint64_t seed, int64_t tokens, int64_t channels) {
  const FloatMatrix independent = normal_matrix(seed, tokens, channels);
  FloatMatrix mixing = normal_matrix(seed + 1, channels, channels);
  for (int64_t i = 0; i < channels; ++i) {
    for (int64_t k = 0; k < channels; ++k) mixing.row(i)[k] *= k % 17 == 3 ? 4.0f : 0.2f;
    mixing.row(i)[i] += 1.0f;
  }
  FloatMatrix x(tokens, channels);
  gemm_f32(pool, x.tensor(), independent.tensor(), mixing.tensor(), {});
  return x;
}

// mean x x^T.
inline FloatMatrix gram_of(ThreadPool& pool, const FloatMatrix& x) {
  FloatMatrix gram(x.columns(), x.columns());
  gemm_f32(pool, gram.tensor(), x.tensor(), x.tensor(), {.a = Transpose::kYes});
  for (int64_t i = 0; i < gram.rows() * gram.columns(); ++i)
    gram.data()[i] /= static_cast<float>(x.rows());
  return gram;
}

}  // namespace quern::test
