// What a rounded matrix costs: the mean squared error of a linear layer's output over calibration
// tokens, from Gram matrices alone.
//
// With inputs x and wanted outputs y, a matrix v costs mean |y - v x|^2. Around the full-precision
// w this is, row by row, d H d^T - 2 d b^T + constant with d = v - w, H = mean x x^T and
// b = mean (y - w x) x^T. Where inputs are those of the full-precision model, b is zero.
#pragma once

#include <vector>

#include "base/thread_pool.h"
#include "kernels/dense.h"
#include "tensor/buffer.h"
#include "tensor/tensor.h"

namespace quern {

// The cost of each row of d: [rows, n] without the constant. gram: [n, n]; pull is b: [rows, n], or
// nullptr for zero. Works through blocks of rows in bounded memory.
std::vector<double> row_costs(ThreadPool& pool,
                              Tensor d,
                              Tensor gram,
                              const Tensor* pull,
                              Operands operands = Operands::kFloat32);

// The sum of row_costs() without a pull.
double total_cost(ThreadPool& pool, Tensor d, Tensor gram, Operands operands = Operands::kFloat32);

// tr(W H W^T) / rows: the mean squared output that the errors are to be compared with.
double mean_signal(ThreadPool& pool, Tensor w, Tensor gram);

// The sum over all elements of x: [rows, columns].
double sum_of_squares(Tensor x);

FloatMatrix copy_of(Tensor x);

// out = x, of equal shapes, by all threads.
void copy_into(ThreadPool& pool, Tensor out, Tensor x);

// The i-th of `sampled` evenly spaced rows out of `rows`.
inline int64_t sampled_row(int64_t i, int64_t sampled, int64_t rows) { return i * rows / sampled; }

// At most `most` evenly spaced rows of x; the same ones of any matrix with as many rows.
FloatMatrix sample_rows(Tensor x, int64_t most);

// x: [rows, n]; column i times factors[i].
void scale_columns(ThreadPool& pool, Tensor x, const std::vector<float>& factors);

// out -= x.
void subtract(ThreadPool& pool, Tensor out, Tensor x);

}  // namespace quern
