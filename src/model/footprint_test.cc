#include "model/footprint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/test_support.h"

namespace quern {
namespace {

struct Opened {
  std::unique_ptr<Checkpoint> checkpoint;
  ModelSpec spec;
};

Opened open(const char* name) {
  auto checkpoint = Checkpoint::open(test::golden(name)).value();
  ModelSpec spec = read_spec(*checkpoint).value();
  return {std::move(checkpoint), std::move(spec)};
}

TEST(Footprint, CountsEveryStoredNumberOnce) {
  for (const char* name : {"llama", "smollm2", "llama_bias", "qwen2", "qwen3"}) {
    const Opened model = open(name);
    int64_t stored = 0;
    for (const StoredTensor& tensor : model.checkpoint->tensors()) {
      int64_t elements = 1;
      for (const int64_t dim : tensor.shape) elements *= dim;
      stored += elements;
    }
    EXPECT_EQ(count_parameters(model.spec).total(), stored) << name;
  }
}

TEST(Footprint, SplitsParametersByWhereTheyAre) {
  const Opened model = open("llama31");
  const ParameterCount count = count_parameters(model.spec);
  EXPECT_EQ(count.embedding, 128 * 64);
  EXPECT_EQ(count.head, 128 * 64);
  EXPECT_EQ(count.final_norm, 64);
  EXPECT_THAT(count.blocks, testing::ElementsAre(64 + 64 * (64 + 32 + 32 + 64), 64 + 3 * 64 * 96,
                                                 64 + 64 * (64 + 32 + 32 + 64), 64 + 3 * 64 * 96));
  EXPECT_EQ(count_parameters(open("qwen3").spec).head, 0);  // tied
}

TEST(Footprint, SumsStoredBytesByFormat) {
  const Opened model = open("compressed_tensors");
  const auto footprint = weight_footprint(model.spec, *model.checkpoint, Precision::kFast);
  ASSERT_TRUE(footprint);
  const auto& by_format = footprint->stored_by_format;
  EXPECT_EQ(by_format.at("BF16"), 2u * 128 * 64 * 2);
  // Two layers of up_proj: a byte a number, one BF16 scale a row.
  EXPECT_EQ(by_format.at("int-quantized int8 g64"), 2u * (96 * 64 + 96 * 2));
  uint64_t sum = 0;
  for (const auto& [format, bytes] : by_format) sum += bytes;
  EXPECT_EQ(sum, footprint->stored_bytes);
}

TEST(Footprint, KnowsWhatAMatrixTakesPacked) {
  WeightInfo info{.rows = 10, .columns = 64, .format = "BF16", .bits = 16};
  EXPECT_EQ(packed_weight_bytes(info, Precision::kFast), 1280u);
  EXPECT_EQ(packed_weight_bytes(info, Precision::kFloat32), 2560u);
  info.bits = 4;
  info.group_size = 32;
  EXPECT_EQ(packed_weight_bytes(info, Precision::kFast), 320u + 20 * 3);
  info.offset = GroupOffset::kMinimum;
  EXPECT_EQ(packed_weight_bytes(info, Precision::kFast), 320u + 20 * 4);
  info.bits = 6;
  info.group_size = 16;
  info.offset = GroupOffset::kZeroPoint;
  EXPECT_EQ(packed_weight_bytes(info, Precision::kFast), 640u * 6 / 8 + 40 * 3);
  info.bits = 8;
  EXPECT_EQ(packed_weight_bytes(info, Precision::kFast), 640u + 40 * 3);
  EXPECT_EQ(packed_weight_bytes(info, Precision::kBF16), 1280u);
}

TEST(Footprint, ComputesCacheBytesOfAToken) {
  const ModelSpec spec = open("qwen3").spec;  // 3 layers, 2 key heads of 32
  EXPECT_EQ(kv_bytes_per_token(spec, KvDType::kF32), 3u * 2 * 2 * 32 * 4);
  EXPECT_EQ(kv_bytes_per_token(spec, KvDType::kBF16), 3u * 2 * 2 * 32 * 2);
  EXPECT_EQ(kv_bytes_per_token(spec, KvDType::kInt8), 3u * 2 * (2 * 32 + 2 * 4));
}

TEST(Footprint, ComputesOperationsWithinTheWindow) {
  const ModelSpec spec = open("mistral").spec;  // 2 layers, 4 heads of 16, window 16
  const TokenFlops near = token_flops(spec, 8);
  EXPECT_DOUBLE_EQ(near.linear, 2.0 * 2 * (64 * (64 + 32 + 32 + 64) + 3 * 64 * 96));
  EXPECT_DOUBLE_EQ(near.attention, 2.0 * 4 * 4 * 16 * 8);
  EXPECT_DOUBLE_EQ(near.head, 2.0 * 64 * 128);
  EXPECT_DOUBLE_EQ(near.total(), near.linear + near.attention + near.head);
  EXPECT_DOUBLE_EQ(token_flops(spec, 100).attention, token_flops(spec, 16).attention);
}

TEST(Footprint, PlansMemoryForABatch) {
  const Opened model = open("llama31");
  PlanRequest request{.batch = 3, .context = 100, .kv_dtype = KvDType::kF32};
  const auto plan = plan_memory(model.spec, *model.checkpoint, request);
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->kv_cache_bytes, 3u * 128 * kv_bytes_per_token(model.spec, KvDType::kF32));
  EXPECT_EQ(plan->total_bytes(), plan->weights_bytes + plan->kv_cache_bytes + plan->scratch_bytes);
  EXPECT_GT(plan->scratch_bytes, 0u);
}

TEST(Footprint, RefusesPlansThatMakeNoSense) {
  const Opened model = open("llama31");
  const auto refusal = [&](const PlanRequest& request) {
    const auto plan = plan_memory(model.spec, *model.checkpoint, request);
    return plan ? "" : plan.error().message;
  };
  EXPECT_THAT(refusal({.batch = 0, .context = 8}), testing::HasSubstr("batch is 0"));
  EXPECT_THAT(refusal({.context = 0}), testing::HasSubstr("context is 0"));
  EXPECT_THAT(refusal({.context = 513}),
              testing::HasSubstr("context is 513; the model has at most 512 positions"));
  EXPECT_THAT(refusal({.context = 8, .max_batch_tokens = 0}),
              testing::HasSubstr("max_batch_tokens is 0"));
  EXPECT_THAT(refusal({.batch = INT64_MAX, .context = 512}),
              testing::HasSubstr("beyond any memory"));
}

}  // namespace
}  // namespace quern
