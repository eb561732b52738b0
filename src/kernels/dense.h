// Plain float32 matrix algebra for calibration and evaluation, on the pool and the instruction set
// of a backend.
#pragma once

#include "base/thread_pool.h"
#include "tensor/tensor.h"

namespace quern {

enum class Transpose : uint8_t { kNo, kYes };

// What of a product is wanted: everything, or (of a symmetric one) what does not lie below the
// diagonal. Below it the product may be written in places near the diagonal, and nowhere else.
enum class Triangle : uint8_t { kAll, kUpper };

// How a and b are multiplied. kBF16: rounded to BF16 (half to even) where the machine multiplies
// pairs of those by one instruction, twice as fast; elsewhere as they are. Sums are float32.
enum class Operands : uint8_t { kFloat32, kBF16 };

// What of op(b), square, counts: below the diagonal of kUpper its numbers are taken for zeros.
enum class Factor : uint8_t { kWhole, kUpper };

// c = beta * c + alpha * op(a) op(b), with op(a): [m, k], op(b): [k, n], c: [m, n]; all float32
// matrices, rows may be strided. The sum over k is in ascending order in a fixed blocking, so
// results do not depend on the number of threads.
struct GemmParams {
  Transpose a = Transpose::kNo;
  Transpose b = Transpose::kNo;
  float alpha = 1.0f;
  float beta = 0.0f;
  Triangle triangle = Triangle::kAll;
  Operands operands = Operands::kFloat32;
  Factor factor = Factor::kWhole;
};
void gemm_f32(ThreadPool& pool, Tensor c, Tensor a, Tensor b, const GemmParams& params);

// Copies what lies above the diagonal of a square matrix below it.
void mirror_upper(ThreadPool& pool, Tensor x);

}  // namespace quern
