// The linear layer on the CPU: quantises the activations once for each group size, then lets the
// workers take panels of weights.
#pragma once

#include <array>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/packed.h"
#include "tensor/buffer.h"
#include "tensor/tensor.h"

namespace quern::cpu {

// Distinct group sizes that the segments of one layer may have.
inline constexpr int kMaxGroupSizes = 4;

// Working memory of linear(): grows to what the largest call needs and stays. Owned by the backend.
struct LinearScratch {
  struct Quantized {
    int group_size = 0;
    Buffer codes;   // [tokens, code_stride] int8
    Buffer groups;  // [tokens, columns / group_size] ActivationGroup
  };

  std::array<Quantized, kMaxGroupSizes> quantized;
  Buffer gate_up;              // [tokens, rows] float, where gated_linear() needs it
  Buffer columns;              // float activations in tiles, [tile][column][rows of the tile]
  Buffer bf16;                 // the same rounded to BF16: DenseTile::x
  std::vector<Buffer> strips;  // unpacked weights, one for each worker
};

struct DenseOps;
struct LinearOps;
struct TileOps;

// The inner kernels of one instruction set.
struct LinearKernels {
  const LinearOps* ops = nullptr;
  const DenseOps* dense = nullptr;
  const TileOps* tiles = nullptr;  // nullptr: there is no matrix unit
  GateKernel gate = nullptr;       // gated_linear() alone needs it
};

LinearKernels linear_kernels(Isa isa);

// Contract: Backend::linear().
void linear(ThreadPool& pool,
            const LinearKernels& kernels,
            LinearScratch& scratch,
            Tensor out,
            Tensor x,
            const CpuWeight& weight);

// Contract: Backend::gated_linear().
void gated_linear(ThreadPool& pool,
                  const LinearKernels& kernels,
                  LinearScratch& scratch,
                  Tensor out,
                  Tensor x,
                  const CpuWeight& gate_up);

}  // namespace quern::cpu
