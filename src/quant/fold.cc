#include "quant/fold.h"

#include <cmath>

#include "base/check.h"
#include "base/float16.h"
#include "quant/objective.h"

namespace quern {
namespace {

constexpr float kLeastNormalF16 = 0x1p-14f;

float to_f16(float x) { return f16_to_f32(f32_to_f16(x)); }

}  // namespace

std::vector<float> fold_input_scales(ThreadPool& pool,
                                     BlockMatrices& block,
                                     const std::vector<float>& scales) {
  QUERN_CHECK(block.norm.size() == scales.size());
  std::vector<float> effective(scales.size(), 1.0f);
  for (size_t i = 0; i < scales.size(); ++i) {
    const float folded = to_f16(block.norm[i] / scales[i]);
    if (!std::isfinite(folded) || std::fabs(folded) < kLeastNormalF16) continue;
    effective[i] = block.norm[i] / folded;
    block.norm[i] = folded;
  }
  for (size_t i = 0; i < output_index(block); ++i)
    scale_columns(pool, block.linears[i].tensor(), effective);
  return effective;
}

void fold_output_scales(ThreadPool& pool,
                        const BlockSpec& spec,
                        BlockMatrices& block,
                        const std::vector<float>& scales) {
  const size_t producer = output_index(block) - 1;  // v, or up: the last of the joined layers
  const FloatMatrix& rows = block.linears[producer];
  std::vector<float>& bias = block.biases[producer];
  int64_t head_dim = rows.rows();
  int64_t repeats = 1;  // query heads of one key-value head
  if (const auto* attention = std::get_if<AttentionSpec>(&spec.mixer)) {
    head_dim = attention->head_dim;
    repeats = attention->heads / attention->kv_heads;
  }
  for (int64_t row = 0; row < rows.rows(); ++row) {
    // The first channel that this row feeds; the other repeats have the same scale.
    const int64_t channel = row / head_dim * repeats * head_dim + row % head_dim;
    const float scale = scales[static_cast<size_t>(channel)];
    for (int64_t i = 0; i < rows.columns(); ++i) rows.row(row)[i] /= scale;
    if (!bias.empty()) {
      float& b = bias[static_cast<size_t>(row)];
      b = to_f16(b / scale);
    }
  }
  scale_columns(pool, block.linears.back().tensor(), scales);
}

}  // namespace quern
