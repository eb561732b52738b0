// The linear layer for many rows of activations without a matrix unit: weights are unpacked once
// into strips, over which all rows pass.
#pragma once

#include <cstdint>

#include "base/thread_pool.h"
#include "kernels/cpu/linear_call.h"

namespace quern::cpu {

// Whether there are kernels for strips and they pay.
bool uses_strips(const LinearOps& ops, const CpuWeight& weight, int64_t tokens, int threads);

// Whether gated_linear() can: both halves share strips, so they must be alike.
bool gates_by_strips(const CpuWeight& gate_up);

// out = x W^T + bias, or its gate, for quantised activations in rows, a ^ 0x80.
void multiply_by_strips(ThreadPool& pool, const Call& call);

}  // namespace quern::cpu
