#include "quant/fold.h"

#include <cmath>

#include <gtest/gtest.h>

#include "base/float16.h"
#include "quant/block_matrices.h"
#include "quant/streams.h"
#include "quant/test_quantize.h"
#include "quant/test_random.h"

namespace quern {
namespace {

using namespace test;

class FoldFamilies : public ::testing::TestWithParam<const char*> {};

TEST_P(FoldFamilies, AnyScalesKeepTheBlocksOutput) {
  const auto checkpoint = open(golden(GetParam()));
  const auto spec = read_spec(*checkpoint);
  ASSERT_TRUE(spec.has_value());
  const auto b = backend();
  BlockRunner runner(*spec, *b, 24);
  const FloatMatrix stream = test::normal_matrix(3, 24, spec->hidden);
  for (const BlockSpec& block_spec : spec->blocks) {
    BlockMatrices block = *read_block(block_spec, *checkpoint, *b);
    const Tensor answer = runner.run(block_spec, pack_block(block, *b, Precision::kFloat32),
                                     stream.tensor(), nullptr);
    std::vector<float> before(answer.f32(), answer.f32() + answer.elements());
    // Scales across a factor of ten; tied across the query heads of a key-value head.
    std::vector<float> input(static_cast<size_t>(block_spec.norm.width));
    for (size_t i = 0; i < input.size(); ++i) input[i] = 0.3f + 0.29f * static_cast<float>(i % 10);
    std::vector<float> inner(static_cast<size_t>(output_linear(block_spec.mixer).in));
    int head_dim = 1;
    int repeats = 1;
    if (const auto* attention = std::get_if<AttentionSpec>(&block_spec.mixer)) {
      head_dim = attention->head_dim;
      repeats = attention->heads / attention->kv_heads;
    }
    for (size_t i = 0; i < inner.size(); ++i) {
      const auto at = static_cast<int>(i);
      const int source = at / (head_dim * repeats) * head_dim + at % head_dim;
      inner[i] = 0.3f + 0.29f * static_cast<float>(source % 10);
    }
    fold_output_scales(b->pool(), block_spec, block, inner);
    fold_input_scales(b->pool(), block, input);
    const Tensor folded = runner.run(block_spec, pack_block(block, *b, Precision::kFloat32),
                                     stream.tensor(), nullptr);
    double off = 0;
    double signal = 0;
    for (size_t i = 0; i < before.size(); ++i) {
      off += std::pow(static_cast<double>(folded.f32()[i] - before[i]), 2);
      signal += std::pow(static_cast<double>(before[i]), 2);
    }
    // Only folded biases lose anything: they are rounded to f16.
    EXPECT_LT(std::sqrt(off / signal), 3e-4) << block_spec.norm.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Golden,
                         FoldFamilies,
                         ::testing::Values("llama", "llama_bias", "qwen2", "qwen3", "mistral"));

TEST(FoldInputScales, NormsThatF16CannotHoldKeepTheirChannel) {
  const auto b = backend();
  BlockMatrices block;
  block.norm = {1.0f, 0.0f, 1e-6f, 1e4f};
  block.linears.emplace_back(2, 4);
  block.linears.emplace_back(2, 4);
  block.biases.resize(2);
  const auto scales = fold_input_scales(b->pool(), block, {3.0f, 2.0f, 2.0f, 0.01f});
  EXPECT_EQ(scales[0], 1.0f / f16_to_f32(f32_to_f16(1.0f / 3.0f)));
  EXPECT_EQ(scales[1], 1.0f);
  EXPECT_EQ(scales[2], 1.0f);
  EXPECT_EQ(scales[3], 1.0f);
  EXPECT_EQ(block.norm[3], 1e4f);
}

}  // namespace
}  // namespace quern
