#include "model/head.h"

#include <algorithm>
#include <cmath>

#include "base/float16.h"
#include "model/block.h"

namespace quern {
namespace {

constexpr int kHeadGroups[] = {128, 64, 32};
constexpr float kLargestCode = 127;

bool is_quantised(const WeightInfo& info) { return info.group_size != 0 || info.float8_block != 0; }

Result<bool> quantised_blocks(const ModelSpec& spec, const Checkpoint& checkpoint) {
  std::vector<WeightInfo> matrices;
  for (const BlockSpec& block : spec.blocks) {
    for (const LinearSpec* linear : linears(block)) {
      matrices.push_back(QUERN_TRY(checkpoint.weight_info(linear->name)));
    }
  }
  return std::any_of(matrices.begin(), matrices.end(), is_quantised);
}

void round_group(const float* from, int group_size, uint8_t* codes, float& scale) {
  float largest = 0;
  for (int i = 0; i < group_size; ++i) largest = std::max(largest, std::fabs(from[i]));
  scale = f16_to_f32(f32_to_f16(largest / kLargestCode));
  for (int i = 0; i < group_size; ++i) {
    const float code = scale > 0 ? std::nearbyint(from[i] / scale) : 0.0f;
    codes[i] = static_cast<uint8_t>(
        static_cast<int>(std::clamp(code, -kLargestCode, kLargestCode)) + kByteZero);
  }
}

}  // namespace

const std::string& head_name(const ModelSpec& spec) {
  return spec.tied_head() ? spec.embedding : spec.head.name;
}

Result<std::optional<int>> head_group_size(const ModelSpec& spec,
                                           const Checkpoint& checkpoint,
                                           Precision precision,
                                           HeadFormat format) {
  std::optional<int> none;
  if (precision != Precision::kFast || format == HeadFormat::kStored) return none;
  const WeightInfo info = QUERN_TRY(checkpoint.weight_info(head_name(spec)));
  if (is_quantised(info)) return none;
  if (format == HeadFormat::kAuto && !QUERN_TRY(quantised_blocks(spec, checkpoint))) return none;
  for (const int size : kHeadGroups) {
    if (info.columns % size == 0) return std::optional<int>(size);
  }
  return none;
}

GroupedWeight round_to_int8(const Weight& weight, int group_size, ThreadPool& pool) {
  GroupedWeight out = empty_bytes(weight_rows(weight), weight_columns(weight), group_size);
  constexpr int64_t kRowsPerChunk = 64;
  pool.for_each_chunk(out.rows, kRowsPerChunk, [&](int64_t begin, int64_t end, int) {
    std::vector<float> row(static_cast<size_t>(out.columns));
    for (int64_t r = begin; r < end; ++r) {
      widen_row(weight, r, row.data());
      for (int64_t g = 0; g < out.groups(); ++g) {
        round_group(row.data() + g * group_size, group_size,
                    out.codes.data() + r * out.columns + g * group_size,
                    out.scales[static_cast<size_t>(r * out.groups() + g)]);
      }
    }
  });
  return out;
}

}  // namespace quern
