// The linear layer on a matrix unit: from 8 or 16 rows of activations on, all of them in tiles.
#pragma once

#include <cstdint>

#include "base/thread_pool.h"
#include "kernels/cpu/linear_call.h"

namespace quern::cpu {

// Whether there is a matrix unit and it pays.
bool uses_tiles(const LinearKernels& kernels, const CpuWeight& weight, int64_t tokens);

// Whether gated_linear() can: both halves are multiplied side by side, so they must be alike.
bool gates_by_tiles(const CpuWeight& gate_up, int64_t tokens);

// Tiles of as equal a number of rows as can be: a product takes a cycle for each of them.
ActivationLayout tile_layout(int64_t tokens, int64_t columns);

// out = x W^T + bias for quantised activations in tile_layout().
void multiply_by_tiles(ThreadPool& pool, const Call& call);

}  // namespace quern::cpu
