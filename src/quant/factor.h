// Triangular factors of Gram matrices and the solutions that calibration needs of them.
#pragma once

#include "base/result.h"
#include "base/thread_pool.h"
#include "tensor/buffer.h"
#include "tensor/tensor.h"

namespace quern {

// Replaces the symmetric positive definite matrix h: [n, n] by the upper triangular r with
// h = r r^T, zeros below the diagonal. Recursive; float32, with sums inside blocks of 64 in double.
// Errors: kInvalidArgument when a pivot is not positive, which damping of the diagonal prevents.
Result<Unit> factor_upper(ThreadPool& pool, Tensor h);

// Replaces b: [m, n] by b (r r^T)^-1, with r as factor_upper() leaves it.
void solve_right(ThreadPool& pool, Tensor b, Tensor r);

// h[i][i] += share * mean(diag h), and at least `floor` more so that an all-zero h has a factor.
void damp(Tensor h, float share);

}  // namespace quern
