// The key-value cache and attention over it, written as their formulas: the oracle. Contracts:
// Backend. A block holds, for each kv head, the keys [kKvBlockTokens, head_dim], the values of the
// same shape and, for int8, their scales.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/thread_pool.h"
#include "kernels/backend.h"
#include "tensor/tensor.h"

namespace quern::ref {

size_t kv_block_bytes(const KvLayout& layout);

void store_kv(ThreadPool& pool,
              const KvLayer& layer,
              Tensor k,
              Tensor v,
              std::span<const SequenceSpan> sequences);

void attention(ThreadPool& pool,
               Tensor out,
               Tensor q,
               const KvLayer& layer,
               std::span<const SequenceSpan> sequences,
               const AttentionParams& params);

// One cached key and value, widened into key[head_dim] and value[head_dim]; for tests.
void load_kv(const KvLayer& layer, int32_t block, int slot, int head, float* key, float* value);

}  // namespace quern::ref
