// What a model costs before it is loaded: parameters, bytes and floating-point operations, from its
// spec and the shapes in its checkpoint alone.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "model/checkpoint.h"
#include "model/model.h"
#include "model/spec.h"

namespace quern {

// Numbers of the model, biases and norms included. A tied head has none of its own.
struct ParameterCount {
  int64_t embedding = 0;
  int64_t head = 0;
  int64_t final_norm = 0;
  std::vector<int64_t> blocks;  // of each residual block

  int64_t total() const;
};
ParameterCount count_parameters(const ModelSpec& spec);

// Bytes of all matrices of the model.
struct WeightFootprint {
  uint64_t stored_bytes = 0;                         // in the files, scales included
  uint64_t packed_bytes = 0;                         // in memory, at a given precision
  std::map<std::string, uint64_t> stored_by_format;  // "Q4_K" -> bytes
};

// The head as HeadFormat::kAuto holds it. Errors: those of Checkpoint::weight_info().
Result<WeightFootprint> weight_footprint(const ModelSpec& spec,
                                         const Checkpoint& checkpoint,
                                         Precision precision);

// Bytes that a matrix takes when packed, without a backend's padding, a zero point for each group
// counted although a backend may keep one that all groups share only once.
uint64_t packed_weight_bytes(const WeightInfo& info, Precision precision);

// Cache bytes for one more token of one sequence, all layers, without a backend's padding.
uint64_t kv_bytes_per_token(const ModelSpec& spec, KvDType dtype);

// Multiplications and additions (two for each product) that one token takes.
struct TokenFlops {
  double linear = 0;     // the matrices of the blocks
  double attention = 0;  // queries with keys, probabilities with values
  double head = 0;       // only where logits are wanted

  double total() const { return linear + attention + head; }
};

// For a token that sees `context` positions, itself included. A token of a prompt of n tokens sees
// (n + 1) / 2 on average. Requires context >= 0.
TokenFlops token_flops(const ModelSpec& spec, double context);

// What to plan for.
struct PlanRequest {
  int64_t batch = 1;       // sequences at once
  int64_t context = 2048;  // positions of each
  Precision precision = Precision::kFast;
  KvDType kv_dtype = KvDType::kInt8;
  int64_t max_batch_tokens = 512;  // rows of one step
};

struct MemoryPlan {
  uint64_t weights_bytes = 0;
  uint64_t kv_cache_bytes = 0;
  uint64_t scratch_bytes = 0;  // activations of one step

  uint64_t total_bytes() const { return weights_bytes + kv_cache_bytes + scratch_bytes; }
};

// Errors: kInvalidArgument naming the field for numbers below 1 or sizes beyond 64 bits, or a
// context longer than the model's; those of weight_footprint().
Result<MemoryPlan> plan_memory(const ModelSpec& spec,
                               const Checkpoint& checkpoint,
                               const PlanRequest& request);

}  // namespace quern
