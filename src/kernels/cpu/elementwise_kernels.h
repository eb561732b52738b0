// What elementwise.cc asks of each instruction set: one row at a time.
#pragma once

#include <cstdint>

#include "kernels/cpu/isa.h"

namespace quern::cpu {

struct ElementwiseKernels {
  // out = x / sqrt(mean(x^2) + eps) * weight; out may be x.
  void (*rms_norm)(float* out, const float* x, const float* weight, int64_t width, float eps);

  // x += y, then out as above.
  void (*add_rms_norm)(
      float* out, float* x, const float* y, const float* weight, int64_t width, float eps);

  // x += y.
  void (*add)(float* x, const float* y, int64_t width);

  // out = silu(gate) * up.
  void (*silu_multiply)(float* out, const float* gate, const float* up, int64_t width);

  // Rotates the pairs (x[i], x[i + half]) of one head.
  void (*rotate)(float* x, const float* cosines, const float* sines, int64_t half);
};

extern const ElementwiseKernels kElementwiseScalar, kElementwiseNeon, kElementwiseAvx2,
    kElementwiseAvx512;

}  // namespace quern::cpu
