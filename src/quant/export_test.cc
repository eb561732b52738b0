#include "quant/export.h"

#include <algorithm>
#include <vector>

#include <gtest/gtest.h>

#include "quant/test_quantize.h"
#include "tensor/safetensors.h"
#include "tensor/safetensors_writer.h"

namespace quern {
namespace {

namespace fs = std::filesystem;
using namespace test;

TEST(Export, FormatsHoldTheSameNumbers) {
  const Scratch scratch;
  QuantizeOptions options = options_for("best", scratch / "awq");
  ASSERT_TRUE(run(golden("qwen2"), options).has_value());
  options.output = scratch / "ct";
  options.format = QuantFormat::kCompressedTensors;
  ASSERT_TRUE(run(golden("qwen2"), options).has_value());
  const auto awq = open(scratch / "awq");
  const auto ct = open(scratch / "ct");
  EXPECT_EQ(awq->format(), "awq");
  EXPECT_EQ(ct->format(), "compressed-tensors");
  for (const char* module : {"model.layers.0.self_attn.v_proj", "model.layers.1.mlp.down_proj"}) {
    const auto a = std::get<GroupedWeight>(*awq->weight(module));
    const auto c = std::get<GroupedWeight>(*ct->weight(module));
    EXPECT_EQ(a.codes, c.codes);
    EXPECT_EQ(a.scales, c.scales);
    EXPECT_EQ(a.zeros, c.zeros);
  }
}

TEST(Export, ConfigNamesTheFormatAndTheKeptHead) {
  const Scratch scratch;
  ASSERT_TRUE(run(golden("qwen3"), options_for("rtn", scratch / "out")).has_value());
  const Json config = *parse_json(*read_file(scratch / "out" / "config.json", 1u << 24), "config");
  EXPECT_EQ(config["torch_dtype"], "float16");
  EXPECT_EQ(config["quantization_config"]["quant_method"], "awq");
  EXPECT_EQ(config["quantization_config"]["version"], "gemm");
  EXPECT_EQ(config["quantization_config"]["modules_to_not_convert"], Json({"lm_head"}));
  QuantizeOptions options = options_for("rtn", scratch / "ct");
  options.format = QuantFormat::kCompressedTensors;
  ASSERT_TRUE(run(golden("qwen3"), options).has_value());
  const Json ct = (*parse_json(*read_file(options.output / "config.json", 1u << 24),
                               "config"))["quantization_config"];
  EXPECT_EQ(ct["quant_method"], "compressed-tensors");
  EXPECT_EQ(ct["ignore"], Json({"lm_head"}));
  EXPECT_EQ(ct["config_groups"]["group_0"]["weights"]["group_size"], 32);
}

TEST(Export, UnknownTensorsPassThroughByteForByte) {
  const Scratch scratch;
  const fs::path source = scratch / "source";
  fs::create_directories(source);
  const auto original = SafetensorsSet::open(golden("llama"));
  ASSERT_TRUE(original.has_value());
  std::vector<SafetensorsPlan> plan;
  for (const SafetensorsEntry* entry : original->entries())
    plan.push_back({entry->name, entry->dtype, entry->shape});
  plan.push_back({"vision.patch.weight", DType::kU8, {2, 3, 5}});
  std::vector<std::byte> foreign;
  for (int i = 0; i < 30; ++i) foreign.push_back(static_cast<std::byte>(7 * i));
  auto writer = SafetensorsWriter::create(source, plan);
  ASSERT_TRUE(writer.has_value());
  for (const SafetensorsEntry* entry : original->entries())
    writer->write(entry->name, entry->bytes);
  writer->write("vision.patch.weight", foreign);
  writer->finish();
  fs::copy_file(golden("llama") / "config.json", source / "config.json");
  ASSERT_TRUE(run(source, options_for("rtn", scratch / "out")).has_value());
  const auto written = SafetensorsSet::open(scratch / "out");
  const SafetensorsEntry* entry = written->find("vision.patch.weight");
  ASSERT_NE(entry, nullptr);
  EXPECT_EQ(entry->shape, (std::vector<int64_t>{2, 3, 5}));
  EXPECT_TRUE(std::equal(foreign.begin(), foreign.end(), entry->bytes.begin(), entry->bytes.end()));
  const SafetensorsEntry* table = written->find("model.embed_tokens.weight");
  EXPECT_EQ(table->dtype, original->find("model.embed_tokens.weight")->dtype);
}

TEST(Export, HeadAndEmbeddingOnRequest) {
  const Scratch scratch;
  // qwen3 ties its head, llama does not.
  for (const char* model : {"qwen3", "llama"}) {
    for (const OuterMatrices outer : {OuterMatrices::kHead, OuterMatrices::kHeadAndEmbedding}) {
      const bool both = outer == OuterMatrices::kHeadAndEmbedding;
      QuantizeOptions options =
          options_for("best", scratch / (std::string(model) + (both ? "-both" : "-head")));
      options.outer = outer;
      const auto report = run(golden(model), options);
      ASSERT_TRUE(report.has_value()) << report.error().message;
      const auto result = open(options.output);
      const auto spec = read_spec(*result);
      ASSERT_TRUE(spec.has_value());
      EXPECT_TRUE(std::holds_alternative<GroupedWeight>(*result->weight(spec->head.name)));
      EXPECT_EQ(std::holds_alternative<GroupedWeight>(*result->weight(spec->embedding)), both);
      EXPECT_LT(divergence_from(golden(model), options.output), 2.0);
    }
  }
}

TEST(Export, FinishAddsFilesBeforeTheNameAppears) {
  const Scratch scratch;
  const auto checkpoint = open(golden("llama"));
  const auto b = backend();
  const QuantizeOptions options = options_for("rtn", scratch / "out");
  auto add = [&](const fs::path& directory) -> Result<Unit> {
    EXPECT_FALSE(fs::exists(options.output));
    EXPECT_TRUE(fs::exists(directory / "config.json"));
    write_file(directory / "tokenizer.json", "{}");
    return Unit{};
  };
  FinishOutput finish(add);
  ASSERT_TRUE(
      quantize({.checkpoint = checkpoint.get(), .backend = b.get(), .finish = &finish}, options)
          .has_value());
  EXPECT_TRUE(fs::exists(options.output / "tokenizer.json"));
}

}  // namespace
}  // namespace quern
