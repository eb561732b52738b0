#include "model/footprint.h"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>

#include "base/checked.h"
#include "kernels/kv_format.h"
#include "model/block.h"
#include "model/head.h"
#include "tensor/formats/float8.h"

namespace quern {
namespace {

constexpr uint64_t kMaxPlanBytes = uint64_t{1} << 62;
constexpr uint64_t kF16Bytes = 2;

int64_t parameters(const LinearSpec& linear) {
  return linear.in * linear.out + (linear.has_bias ? linear.out : 0);
}

int64_t parameters(const BlockSpec& block) {
  int64_t count = block.norm.width;
  for (const LinearSpec* linear : linears(block)) count += parameters(*linear);
  if (const auto* attention = std::get_if<AttentionSpec>(&block.mixer)) {
    if (attention->q_norm) count += attention->q_norm->width + attention->k_norm->width;
  }
  return count;
}

// Every matrix of the model once.
std::vector<std::string> matrices(const ModelSpec& spec) {
  std::vector<std::string> names{spec.embedding};
  for (const BlockSpec& block : spec.blocks) {
    for (const LinearSpec* linear : linears(block)) names.push_back(linear->name);
  }
  if (!spec.tied_head()) names.push_back(spec.head.name);
  return names;
}

// Key and value of one head, quantised as kernels/kv_format.h says.
uint64_t kv_head_bytes(int head_dim, KvDType dtype) {
  const auto dims = static_cast<uint64_t>(head_dim);
  switch (dtype) {
    case KvDType::kF32:
      return 2 * dims * 4;
    case KvDType::kBF16:
      return 2 * dims * 2;
    case KvDType::kInt8: {
      const auto scales = static_cast<uint64_t>(key_groups({dtype, 1, head_dim})) + 1;
      return 2 * dims + scales * sizeof(float);
    }
  }
  return 0;
}

Result<Unit> require_positive(std::string_view name, int64_t value) {
  if (value >= 1) return Unit{};
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{} is {}; expected a number from 1", name, value)};
}

}  // namespace

int64_t ParameterCount::total() const {
  return std::accumulate(blocks.begin(), blocks.end(), embedding + head + final_norm);
}

ParameterCount count_parameters(const ModelSpec& spec) {
  ParameterCount count;
  count.embedding = spec.vocabulary * spec.hidden;
  count.head = spec.tied_head() ? 0 : parameters(spec.head);
  count.final_norm = spec.final_norm.width;
  for (const BlockSpec& block : spec.blocks) count.blocks.push_back(parameters(block));
  return count;
}

uint64_t packed_weight_bytes(const WeightInfo& info, Precision precision) {
  const uint64_t count = static_cast<uint64_t>(info.rows) * static_cast<uint64_t>(info.columns);
  if (precision == Precision::kFloat32) return 4 * count;
  if (precision == Precision::kBF16) return 2 * count;
  if (info.float8_block != 0) {
    const std::optional<int> group = float8_group_size(info.columns, info.float8_block);
    return group ? count + count / static_cast<uint64_t>(*group) * kF16Bytes : 4 * count;
  }
  if (info.group_size == 0) return count * static_cast<uint64_t>(info.bits) / 8;
  const uint64_t codes = info.bits == 4 ? (count + 1) / 2 : info.bits <= 6 ? count * 3 / 4 : count;
  // A scale and a zero point of one byte, or a scale and a minimum.
  const uint64_t record = info.offset == GroupOffset::kZeroPoint ? kF16Bytes + 1 : 2 * kF16Bytes;
  return codes + count / static_cast<uint64_t>(info.group_size) * record;
}

Result<WeightFootprint> weight_footprint(const ModelSpec& spec,
                                         const Checkpoint& checkpoint,
                                         Precision precision) {
  WeightFootprint footprint;
  const std::optional<int> head_group =
      QUERN_TRY(head_group_size(spec, checkpoint, precision, HeadFormat::kAuto));
  for (const std::string& name : matrices(spec)) {
    WeightInfo info = QUERN_TRY(checkpoint.weight_info(name));
    footprint.stored_bytes += info.bytes;
    footprint.stored_by_format[info.format] += info.bytes;
    if (head_group && name == head_name(spec)) {
      info.bits = 8;
      info.group_size = *head_group;
      info.offset = GroupOffset::kZeroPoint;
    }
    footprint.packed_bytes += packed_weight_bytes(info, precision);
  }
  return footprint;
}

uint64_t kv_bytes_per_token(const ModelSpec& spec, KvDType dtype) {
  uint64_t bytes = 0;
  for (const BlockSpec& block : spec.blocks) {
    const auto* attention = std::get_if<AttentionSpec>(&block.mixer);
    if (attention == nullptr) continue;
    bytes += static_cast<uint64_t>(attention->kv_heads) * kv_head_bytes(attention->head_dim, dtype);
  }
  return bytes;
}

TokenFlops token_flops(const ModelSpec& spec, double context) {
  TokenFlops flops;
  for (const BlockSpec& block : spec.blocks) {
    for (const LinearSpec* linear : linears(block)) {
      flops.linear += 2.0 * static_cast<double>(linear->in) * static_cast<double>(linear->out);
    }
    const auto* attention = std::get_if<AttentionSpec>(&block.mixer);
    if (attention == nullptr) continue;
    const auto window = static_cast<double>(attention->window);
    const double seen = window > 0 ? std::min(context, window) : context;
    flops.attention += 4.0 * attention->heads * attention->head_dim * seen;
  }
  flops.head = 2.0 * static_cast<double>(spec.hidden) * static_cast<double>(spec.vocabulary);
  return flops;
}

Result<MemoryPlan> plan_memory(const ModelSpec& spec,
                               const Checkpoint& checkpoint,
                               const PlanRequest& request) {
  QUERN_TRY(require_positive("batch", request.batch));
  QUERN_TRY(require_positive("context", request.context));
  QUERN_TRY(require_positive("max_batch_tokens", request.max_batch_tokens));
  if (request.context > spec.max_context) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("context is {}; the model has at most {} positions", request.context,
                             spec.max_context)};
  }
  const CheckedSize positions =
      CheckedSize(static_cast<uint64_t>(request.context)).align(kKvBlockTokens);
  const CheckedSize kv =
      positions * static_cast<uint64_t>(request.batch) * kv_bytes_per_token(spec, request.kv_dtype);
  const CheckedSize scratch =
      CheckedSize(step_row_bytes(spec)) * static_cast<uint64_t>(request.max_batch_tokens);
  if (!kv.fits(kMaxPlanBytes) || !scratch.fits(kMaxPlanBytes)) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("batch {} at context {} and {} rows a step is beyond any memory",
                             request.batch, request.context, request.max_batch_tokens)};
  }
  MemoryPlan plan;
  plan.weights_bytes =
      QUERN_TRY(weight_footprint(spec, checkpoint, request.precision)).packed_bytes;
  plan.kv_cache_bytes = *kv.value();
  plan.scratch_bytes = *scratch.value();
  return plan;
}

}  // namespace quern
