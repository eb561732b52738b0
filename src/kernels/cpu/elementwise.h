// Norms, rotation, sums and gates on SIMD lanes. Contracts: Backend. Every sum runs in one fixed
// order (64 partial sums, then a tree), whatever the instruction set, so results are equal bit for
// bit on all of them. Few rows run on the caller alone.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/backend.h"
#include "kernels/cpu/isa.h"
#include "tensor/tensor.h"

namespace quern::cpu {

void rms_norm(
    ThreadPool& pool, Isa isa, Tensor out, Tensor x, std::span<const float> weight, float eps);

void add_rms_norm(ThreadPool& pool,
                  Isa isa,
                  Tensor out,
                  Tensor x,
                  Tensor y,
                  std::span<const float> weight,
                  float eps);

void add(ThreadPool& pool, Isa isa, Tensor x, Tensor y);

// out = silu(gate) * up, one row.
using GateKernel = void (*)(float* out, const float* gate, const float* up, int64_t width);
GateKernel gate_kernel_for(Isa isa);

// The same for rows of gate_up, which joins both: [tokens, 2 * width]; out: [tokens, width].
void silu_multiply(ThreadPool& pool, GateKernel kernel, Tensor out, Tensor gate_up);

// Sines and cosines of the rows of a step, kept from one call of rope() to the next: all layers of
// a step share them. Owned by the backend.
class RopeTables {
 public:
  // cos[half] then sin[half] for each position, times attention_factor; half =
  // params.inverse_frequencies.size(). Angles are computed in float64, so positions of millions
  // stay exact to float32. Valid until the next call.
  std::span<const float> rows(ThreadPool& pool,
                              std::span<const int32_t> positions,
                              const RopeParams& params);

 private:
  struct Table {
    std::vector<double> inverse_frequencies;
    float attention_factor = 0;
    std::vector<int32_t> positions;
    std::vector<float> values;
  };

  std::array<Table, 2> tables_;  // models with local and global layers alternate between two
  size_t next_ = 0;
};

void rope(ThreadPool& pool,
          Isa isa,
          RopeTables& tables,
          Tensor x,
          std::span<const int32_t> positions,
          const RopeParams& params);

}  // namespace quern::cpu
