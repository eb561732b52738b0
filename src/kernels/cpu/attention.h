// The paged key-value cache and attention over it on SIMD lanes. Contracts: Backend.
//
// The result of one query row and head is defined without regard to batch, chunks or threads: the
// visible positions are cut into segments of kSegmentTokens at fixed positions; each segment visits
// its blocks in ascending order with the online softmax; the segments are merged in ascending
// order. All instruction sets give the same bits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/thread_pool.h"
#include "kernels/backend.h"
#include "kernels/cpu/isa.h"
#include "tensor/buffer.h"
#include "tensor/tensor.h"

namespace quern::cpu {

inline constexpr int kSegmentTokens = 256;

// A multiple of 64, so that aligned blocks stay aligned.
size_t kv_block_bytes(const KvLayout& layout);

void store_kv(ThreadPool& pool,
              Isa isa,
              const KvLayer& layer,
              Tensor k,
              Tensor v,
              std::span<const SequenceSpan> sequences);

// Working memory of attention(); grows to what the largest batch needs and stays. Owned by the
// backend.
struct AttentionScratch {
  Buffer items;     // what is to be done, one entry for each piece of work
  Buffer splits;    // sequences whose segments are done apart
  Buffer workers;   // the rows in progress of each thread
  Buffer partials;  // results of segments before they are merged
};

void attention(ThreadPool& pool,
               Isa isa,
               AttentionScratch& scratch,
               Tensor out,
               Tensor q,
               const KvLayer& layer,
               std::span<const SequenceSpan> sequences,
               const AttentionParams& params);

// One cached key and value, widened into key[head_dim] and value[head_dim]; for tests.
void load_kv(const KvLayer& layer, int32_t block, int slot, int head, float* key, float* value);

}  // namespace quern::cpu
