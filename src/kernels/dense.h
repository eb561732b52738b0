// Plain float32 matrix algebra for calibration and evaluation, on the pool and the instruction set
// of a backend.
#pragma once

#include "base/thread_pool.h"
#include "tensor/tensor.h"

namespace quern {

enum class Transpose : uint8_t { kNo, kYes };

// c = beta * c + alpha * op(a) op(b), with op(a): [m, k], op(b): [k, n], c: [m, n]; all float32
// matrices, rows may be strided. The sum over k is in ascending order in a fixed blocking, so
// results do not depend on the number of threads.
struct GemmParams {
  Transpose a = Transpose::kNo;
  Transpose b = Transpose::kNo;
  float alpha = 1.0f;
  float beta = 0.0f;
};
void gemm_f32(ThreadPool& pool, Tensor c, Tensor a, Tensor b, const GemmParams& params);

// gram += x^T x for x: [tokens, width], gram: [width, width]; both triangles are written.
void accumulate_gram(ThreadPool& pool, Tensor gram, Tensor x);

}  // namespace quern
