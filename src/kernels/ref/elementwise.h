// Norms, rotation, sums and gates, written as their formulas: the oracle. Contracts: Backend.
#pragma once

#include <cstdint>
#include <span>

#include "base/thread_pool.h"
#include "kernels/backend.h"
#include "tensor/tensor.h"

namespace quern::ref {

void rms_norm(ThreadPool& pool, Tensor out, Tensor x, std::span<const float> weight, float eps);

void add_rms_norm(
    ThreadPool& pool, Tensor out, Tensor x, Tensor y, std::span<const float> weight, float eps);

void add(ThreadPool& pool, Tensor x, Tensor y);

void rope(ThreadPool& pool, Tensor x, std::span<const int32_t> positions, const RopeParams& params);

void silu_multiply(ThreadPool& pool, Tensor out, Tensor gate_up);

}  // namespace quern::ref
