// Opening checkpoints, and every way in which a Hugging Face directory is refused.
#include <cstring>
#include <functional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "base/float16.h"
#include "model/footprint.h"
#include "model/quantization.h"
#include "model/test_support.h"

namespace quern {
namespace {

using test::EditedCheckpoint;
using test::EditTensor;
using testing::HasSubstr;

const std::string kQ = "model.layers.0.self_attn.q_proj";
const std::string kO = "model.layers.0.self_attn.o_proj";
const std::string kUp = "model.layers.0.mlp.up_proj";
const std::string kDown = "model.layers.0.mlp.down_proj";

std::string open_error(const std::filesystem::path& path) {
  const auto checkpoint = Checkpoint::open(path);
  return checkpoint ? "" : checkpoint.error().message;
}

// A change to a golden checkpoint and what the error of opening or loading it must say.
struct Broken {
  std::string name;
  std::string golden;
  std::function<void(EditedCheckpoint&)> change;
  std::string message;
};

void PrintTo(const Broken& broken, std::ostream* out) { *out << broken.name; }

void patch_quantization(EditedCheckpoint& checkpoint, const char* patch) {
  checkpoint.config["quantization_config"].merge_patch(Json::parse(patch));
}

Broken broken_config(std::string name, std::string golden, const char* patch, std::string message) {
  return {std::move(name), std::move(golden),
          [patch](EditedCheckpoint& c) { patch_quantization(c, patch); }, std::move(message)};
}

// A group of the golden compressed-tensors config with one change.
Broken broken_group(std::string name, const char* patch, std::string message) {
  return {std::move(name), "compressed_tensors",
          [patch](EditedCheckpoint& c) {
            Json& groups = c.config["quantization_config"]["config_groups"];
            groups["group_3"].merge_patch(Json::parse(patch));
          },
          std::move(message)};
}

void put_f32(EditTensor& tensor, size_t index, float value) {
  std::memcpy(tensor.bytes.data() + index * sizeof value, &value, sizeof value);
}

void put_u16(EditTensor& tensor, size_t index, uint16_t value) {
  std::memcpy(tensor.bytes.data() + index * sizeof value, &value, sizeof value);
}

std::vector<Broken> broken_numbers() {
  return {
      {"NanInBf16", "llama31",
       [](auto& c) { put_u16(c.tensors[kUp + ".weight"], 64 * 5 + 3, 0x7fc0); },
       kUp + ".weight\": row 5, column 3 is nan"},
      {"InfinityInF16", "llama_bias",
       [](auto& c) { put_u16(c.tensors[kUp + ".weight"], 64 * 7, 0x7c00); },
       kUp + ".weight\": row 7, column 0 is inf"},
      {"InfinityInF32", "qwen2",
       [](auto& c) { put_f32(c.tensors["model.embed_tokens.weight"], 64 * 9 + 1, -HUGE_VALF); },
       "model.embed_tokens.weight\": row 9, column 1 is -inf"},
      {"NanInNorm", "qwen2", [](auto& c) { put_f32(c.tensors["model.norm.weight"], 3, NAN); },
       "model.norm.weight has a NaN or infinite number"},
      {"InfinityInBias", "llama_bias",
       [](auto& c) { put_u16(c.tensors[kUp + ".bias"], 1, 0xfc00); },
       kUp + ".bias has a NaN or infinite number"},
      {"NormOfAnotherWidth", "llama31",
       [](auto& c) { c.tensors["model.norm.weight"] = EditTensor::zeros(DType::kF32, {65}); },
       "model.norm.weight has 65 numbers; the configuration asks for 64"},
      {"NormOfTwoDimensions", "llama31",
       [](auto& c) {
         c.tensors["model.norm.weight"].shape = {8, 8};
       },
       "model.norm.weight has 2 dimensions; expected 1"},
      {"MatrixOfIntegers", "llama31",
       [](auto& c) {
         c.tensors[kUp + ".weight"] = EditTensor::zeros(DType::kI32, {96, 64});
       },
       kUp + ".weight is of type I32; supported are F32, F16, BF16"},
  };
}

std::vector<Broken> broken_awq() {
  return {
      {"QuantizationIsNoObject", "awq", [](auto& c) { c.config["quantization_config"] = 4; },
       "quantization_config is not an object"},
      broken_config("UnknownMethod", "awq", R"({"quant_method": "gptq"})",
                    "the quantisation method \"gptq\" is not supported; known are awq, "
                    "compressed-tensors, fp8"),
      broken_config("NoMethod", "awq", R"({"quant_method": null})", "\"quant_method\" is missing"),
      broken_config("Gemv", "awq", R"({"version": "gemv"})",
                    "\"version\" is gemv; supported is gemm"),
      broken_config("EightBits", "awq", R"({"bits": 8})", "\"bits\" is 8; supported is 4"),
      broken_config("NoZeroPoint", "awq", R"({"zero_point": false})", "\"zero_point\" is false"),
      broken_config("GroupOfNothing", "awq", R"({"group_size": 0})", "\"group_size\" is 0"),
      broken_config("GroupThatDoesNotDivide", "awq", R"({"group_size": 48})", kQ),
      broken_config("SkippedIsNoList", "awq", R"({"modules_to_not_convert": "lm_head"})",
                    "\"modules_to_not_convert\" is not an array of strings"),
      broken_config("SkippedHasNumbers", "awq", R"({"modules_to_not_convert": [1]})",
                    "\"modules_to_not_convert\" is not an array of strings"),
      broken_config("SkippedButStoredQuantised", "awq", R"({"modules_to_not_convert": ["q_proj"]})",
                    kQ + ": stored as AWQ although \"modules_to_not_convert\" names it"),
      {"NoZeros", "awq", [](auto& c) { c.tensors.erase(kQ + ".qzeros"); }, kQ + ".qzeros"},
      {"CodesOfAnotherType", "awq", [](auto& c) { c.tensors[kQ + ".qweight"].dtype = DType::kF32; },
       kQ + ": qweight and qzeros are not both I32"},
      {"CodesOfOneDimension", "awq", [](auto& c) { c.tensors[kQ + ".qweight"].shape = {512}; },
       kQ + ".qweight has 1 dimensions; expected 2"},
      {"ScalesOfAnotherShape", "awq",
       [](auto& c) {
         c.tensors[kQ + ".scales"] = EditTensor::zeros(DType::kF16, {3, 64});
       },
       kQ},
      {"NanInScales", "awq", [](auto& c) { put_u16(c.tensors[kQ + ".scales"], 0, 0x7e00); }, kQ},
  };
}

std::vector<Broken> broken_compressed_configs() {
  const std::string golden = "compressed_tensors";
  return {
      broken_config("NoGroups", golden, R"({"config_groups": null})", "config_groups is missing"),
      broken_config("GroupsAreNoObject", golden, R"({"config_groups": 5})",
                    "config_groups is not an object"),
      broken_config("GroupIsNoObject", golden, R"({"config_groups": {"group_9": 1}})",
                    "group_9 is not an object"),
      broken_config("Sparsity", golden, R"({"sparsity_config": {"format": "sparse-bitmask"}})",
                    "\"sparsity_config\" is not supported"),
      broken_config("Transforms", golden, R"({"transform_config": {"config_groups": {}}})",
                    "\"transform_config\" is not supported"),
      broken_config("NotYetCompressed", golden, R"({"quantization_status": "frozen"})",
                    "\"quantization_status\" is \"frozen\"; supported is compressed"),
      broken_config("IgnoredButStoredQuantised", golden, R"({"ignore": ["re:.*q_proj"]})",
                    kQ + ": stored quantised although \"ignore\" names it"),
      broken_config("BadExpression", golden, R"({"ignore": ["re:("]})",
                    "\"re:(\" is no valid regular expression"),
      broken_group("UnknownFormat", R"({"format": "marlin-24"})",
                   "\"format\" is \"marlin-24\"; supported is pack-quantized, int-quantized, "
                   "naive-quantized, float-quantized"),
      broken_group("NoTarget", R"({"targets": ["Conv2d"]})",
                   kQ + ": stored quantised although no group of \"config_groups\" targets it"),
      broken_group("TargetsAreNoList", R"({"targets": 1})", "\"targets\" is not an array"),
      broken_group("NoWeights", R"({"weights": null})", "weights is missing"),
      broken_group("Floats", R"({"weights": {"type": "float"}})", "\"type\" is \"float\""),
      broken_group("ThreeBits", R"({"weights": {"num_bits": 3}})",
                   "\"num_bits\" is \"3\"; supported is 4, 8"),
      broken_group("Blocks", R"({"weights": {"strategy": "block"}})",
                   "\"strategy\" is \"block\"; supported is channel, group"),
      broken_group("NoGroupSize", R"({"weights": {"group_size": null}})",
                   "\"group_size\" is missing"),
      broken_group("GroupThatDoesNotDivide", R"({"weights": {"group_size": 48}})",
                   kQ + ": 64 columns are no multiple of \"group_size\", 48"),
      broken_group("GroupOfAnotherSize", R"({"weights": {"group_size": 64}})",
                   kQ + ": weight_scale has 128 numbers; expected 64 rows of 1"),
  };
}

std::vector<Broken> broken_compressed_tensors() {
  const std::string golden = "compressed_tensors";
  return {
      {"ColumnOrder", golden,
       [](auto& c) { c.tensors[kQ + ".weight_g_idx"] = EditTensor::zeros(DType::kI32, {64}); },
       kQ + ": weight_g_idx is there"},
      {"NoShape", golden, [](auto& c) { c.tensors.erase(kQ + ".weight_shape"); },
       kQ + ".weight_shape"},
      {"AnotherShape", golden,
       [](auto& c) { c.tensors[kQ + ".weight_shape"].bytes[0] = std::byte{63}; },
       kQ + ": weight_packed of 64 x 8 words of I32 does not fit weight_shape 63 x 64"},
      {"NoScale", golden, [](auto& c) { c.tensors.erase(kQ + ".weight_scale"); },
       kQ + ".weight_scale"},
      {"NoZeroPoint", golden, [](auto& c) { c.tensors.erase(kQ + ".weight_zero_point"); },
       kQ + ".weight_zero_point"},
      {"ZeroPointOfAnotherShape", golden,
       [](auto& c) {
         c.tensors[kQ + ".weight_zero_point"] = EditTensor::zeros(DType::kI32, {7, 2});
       },
       kQ + ": weight_zero_point is I32 of shape 7 x 2; that does not fit 64 rows of 2 groups"},
      {"ZeroPointBeyondItsBits", golden,
       [](auto& c) {
         EditTensor zeros = EditTensor::zeros(DType::kI8, {64, 2});
         zeros.bytes[5] = std::byte{8};
         c.tensors[kQ + ".weight_zero_point"] = zeros;
       },
       kQ + ": weight_zero_point has 8; expected -8 to 7"},
      {"NanInPackedScale", golden,
       [](auto& c) { put_u16(c.tensors[kQ + ".weight_scale"], 0, 0x7fc0); }, kQ},
      {"NanInByteScale", golden,
       [](auto& c) { put_u16(c.tensors[kUp + ".weight_scale"], 0, 0x7fc0); },
       kUp + ": weight_scale has a NaN or infinite number"},
      {"BytesOfAnotherType", golden,
       [](auto& c) {
         c.tensors[kUp + ".weight"] = EditTensor::zeros(DType::kU8, {96, 64});
       },
       kUp + ": weight is not of type I8"},
      {"BytesOfNoColumns", golden,
       [](auto& c) {
         c.tensors[kUp + ".weight"] = EditTensor::zeros(DType::kI8, {96, 0});
       },
       kUp + ": weight is empty"},
      {"CodesBeyondTheirBits", golden,
       [](auto& c) {
         Json& groups = c.config["quantization_config"]["config_groups"];
         groups["group_2"]["weights"]["num_bits"] = 4;
       },
       kUp + ": weight has codes beyond 4 bits"},
      {"GroupsThatNoKernelTakes", golden,
       [](auto& c) {
         Json& groups = c.config["quantization_config"]["config_groups"];
         groups["group_3"]["weights"].merge_patch({{"group_size", 8}, {"symmetric", true}});
         for (auto& [name, tensor] : c.tensors) {
           const bool grouped = name.find("q_proj.weight_scale") != std::string::npos ||
                                name.find("k_proj.weight_scale") != std::string::npos ||
                                name.find("v_proj.weight_scale") != std::string::npos ||
                                name.find("gate_proj.weight_scale") != std::string::npos;
           if (grouped) tensor = EditTensor::zeros(DType::kBF16, {tensor.shape[0], 8});
         }
       },
       kQ + ".weight has groups of 8 columns; supported are 16 and multiples of 32"},
  };
}

std::vector<Broken> broken_fp8() {
  const std::string own = "fp8";
  const std::string compressed = "fp8_compressed";
  const auto group = [&](std::string name, const char* patch, std::string message) {
    return Broken{std::move(name), compressed,
                  [patch](EditedCheckpoint& c) {
                    Json& groups = c.config["quantization_config"]["config_groups"];
                    groups["group_2"].merge_patch(Json::parse(patch));
                  },
                  std::move(message)};
  };
  return {
      broken_config("AnotherKindOfFloat", own, R"({"fmt": "e5m2"})",
                    "\"fmt\" is \"e5m2\"; supported is e4m3"),
      broken_config("BlockOfOneSide", own, R"({"weight_block_size": [128]})",
                    "\"weight_block_size\" is [128]; expected two numbers from 1 to"),
      broken_config("BlockOfNothing", own, R"({"weight_block_size": [0, 128]})",
                    "\"weight_block_size\" is [0,128]; expected two numbers"),
      broken_config("BlockOfWords", own, R"({"weight_block_size": "128"})",
                    "\"weight_block_size\" is \"128\"; expected two numbers"),
      broken_config("BlocksOfAnotherSize", own, R"({"weight_block_size": [16, 16]})",
                    kQ + ": 2 scales; expected 16 for blocks of 16 x 16"),
      {"NanInNumbers", own,
       [](auto& c) { c.tensors[kQ + ".weight"].bytes[64 * 3 + 9] = std::byte{0xff}; },
       kQ + ": row 3, column 9 is NaN"},
      {"InfiniteScale", own,
       [](auto& c) { put_f32(c.tensors[kQ + ".weight_scale_inv"], 1, HUGE_VALF); },
       kQ + ": scale 1 is inf"},
      {"ScalesOfIntegers", own,
       [](auto& c) { c.tensors[kQ + ".weight_scale_inv"].dtype = DType::kI32; },
       kQ + ".weight_scale_inv\" is I32; expected F32, F16 or BF16"},
      {"NumbersOfAnotherType", own,
       [](auto& c) {
         c.tensors[kQ + ".weight"] = EditTensor::zeros(DType::kI8, {64, 64});
       },
       kQ + ".weight is I8 with 4096 numbers beside scales; expected F8_E4M3"},
      {"NumbersOfOneDimension", own, [](auto& c) { c.tensors[kQ + ".weight"].shape = {4096}; },
       kQ + ".weight has 1 dimensions; expected 2"},
      {"NumbersWithoutScales", own, [](auto& c) { c.tensors.erase(kQ + ".weight_scale_inv"); },
       kQ + ".weight is of type F8_E4M3; supported are F32, F16, BF16"},
      group("IntegersInAFloatFormat", R"({"weights": {"type": "int"}})",
            "\"type\" is \"int\"; supported is float for this format"),
      group("FourBitFloats", R"({"weights": {"num_bits": 4}})",
            "\"num_bits\" is \"4\"; supported is 8"),
      group("ShiftedFloats", R"({"weights": {"symmetric": false}})", "\"symmetric\" is \"false\""),
      group("FloatsInGroups", R"({"weights": {"strategy": "group"}})",
            "\"strategy\" is \"group\"; supported is tensor, channel, block"),
  };
}

class BrokenCheckpoint : public testing::TestWithParam<Broken> {};

TEST_P(BrokenCheckpoint, NamesWhatIsWrong) {
  EditedCheckpoint checkpoint(GetParam().golden);
  GetParam().change(checkpoint);
  const auto backend = test::backend("ref");
  EXPECT_THAT(checkpoint.failure(*backend), HasSubstr(GetParam().message));
}

std::string broken_name(const testing::TestParamInfo<Broken>& info) { return info.param.name; }

INSTANTIATE_TEST_SUITE_P(Numbers,
                         BrokenCheckpoint,
                         testing::ValuesIn(broken_numbers()),
                         broken_name);
INSTANTIATE_TEST_SUITE_P(Awq, BrokenCheckpoint, testing::ValuesIn(broken_awq()), broken_name);
INSTANTIATE_TEST_SUITE_P(CompressedConfig,
                         BrokenCheckpoint,
                         testing::ValuesIn(broken_compressed_configs()),
                         broken_name);
INSTANTIATE_TEST_SUITE_P(CompressedTensors,
                         BrokenCheckpoint,
                         testing::ValuesIn(broken_compressed_tensors()),
                         broken_name);

INSTANTIATE_TEST_SUITE_P(Fp8, BrokenCheckpoint, testing::ValuesIn(broken_fp8()), broken_name);

TEST(Checkpoint, NamesThePathWhereNothingIs) {
  const auto checkpoint = Checkpoint::open("/nowhere/at/all");
  ASSERT_FALSE(checkpoint);
  EXPECT_EQ(checkpoint.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(checkpoint.error().message, HasSubstr("/nowhere/at/all"));
}

TEST(Checkpoint, RefusesAFileThatIsNoGguf) {
  const auto path = test::golden("llama/config.json");
  EXPECT_THAT(open_error(path),
              HasSubstr("config.json: neither a GGUF file nor a directory with config.json"));
}

TEST(Checkpoint, RefusesADirectoryWithoutConfigOrTensors) {
  EditedCheckpoint empty("llama");
  EXPECT_THAT(open_error(empty.path()), HasSubstr("config.json"));
  write_file(empty.path() / "config.json", "{}");
  EXPECT_THAT(open_error(empty.path()), HasSubstr("model.safetensors"));
}

TEST(Checkpoint, RefusesConfigsThatAreNoJsonObjects) {
  EditedCheckpoint broken("llama");
  ASSERT_TRUE(broken.open());
  write_file(broken.path() / "config.json", "{");
  EXPECT_THAT(open_error(broken.path()), HasSubstr("config.json: not valid JSON"));
  write_file(broken.path() / "config.json", "[]");
  EXPECT_THAT(open_error(broken.path()), HasSubstr("config.json: not a JSON object"));
  write_file(broken.path() / "config.json", "{}");
  write_file(broken.path() / "generation_config.json", "3");
  EXPECT_THAT(open_error(broken.path()), HasSubstr("generation_config.json: not a JSON object"));
}

TEST(Checkpoint, NamesItsFormat) {
  const auto format = [](const char* name) {
    return std::string(Checkpoint::open(test::golden(name)).value()->format());
  };
  EXPECT_EQ(format("llama"), "safetensors");
  EXPECT_EQ(format("awq"), "awq");
  EXPECT_EQ(format("compressed_tensors"), "compressed-tensors");
  EXPECT_EQ(format("fp8"), "fp8");
  EXPECT_EQ(format("fp8_compressed"), "fp8");
  EXPECT_EQ(format("llama31/model.gguf"), "gguf");
}

TEST(Checkpoint, TellsFormsWithoutDecoding) {
  const auto awq = Checkpoint::open(test::golden("awq")).value();
  const WeightInfo info = awq->weight_info(kDown).value();
  EXPECT_EQ(info.rows, 64);
  EXPECT_EQ(info.columns, 96);
  EXPECT_EQ(info.format, "awq int4 g32");
  EXPECT_EQ(info.bytes, 64u * 96 / 2 + 3u * 64 / 2 + 3u * 64 * 2);
  EXPECT_EQ(awq->weight_bytes(kDown), info.bytes);
  EXPECT_EQ(awq->weight_bytes("no.such.module"), 0u);
  EXPECT_EQ(awq->weight_info("lm_head").value().format, "BF16");
  EXPECT_TRUE(awq->has_weight(kDown));
  EXPECT_FALSE(awq->has_tensor(kDown + ".weight"));
  EXPECT_FALSE(awq->has_weight("no.such.module"));
  EXPECT_EQ(awq->weight("no.such.module").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(awq->vector("no.such.vector").error().code, ErrorCode::kNotFound);

  const WeightInfo fp8 = Checkpoint::open(test::golden("fp8")).value()->weight_info(kDown).value();
  EXPECT_EQ(fp8.rows, 64);
  EXPECT_EQ(fp8.columns, 96);
  EXPECT_EQ(fp8.format, "F8_E4M3");
  EXPECT_EQ(fp8.float8_block, 64);
  EXPECT_EQ(fp8.bytes, 64u * 96 + 2u * 2 * 4);

  const auto compressed = Checkpoint::open(test::golden("compressed_tensors")).value();
  EXPECT_EQ(compressed->weight_info(kQ).value().format, "pack-quantized int4 g32");
  EXPECT_EQ(compressed->weight_info(kO).value().format, "pack-quantized int4 g64");
  EXPECT_EQ(compressed->weight_info(kUp).value().format, "int-quantized int8 g64");
  EXPECT_EQ(compressed->weight_info(kDown).value().format, "pack-quantized int8 g32");
}

TEST(Checkpoint, ReadsZeroPointsOfOneByteAsOlderWritersStoredThem) {
  const auto packed = Checkpoint::open(test::golden("compressed_tensors")).value();
  const Weight weight = packed->weight(kQ).value();
  const auto& expected = std::get<GroupedWeight>(weight);
  EditedCheckpoint older("compressed_tensors");
  EditTensor zeros = EditTensor::zeros(DType::kI8, {64, 2});
  for (size_t i = 0; i < zeros.bytes.size(); ++i) {
    zeros.bytes[i] = static_cast<std::byte>(static_cast<int8_t>(expected.zeros[i] - 8));
  }
  older.tensors[kQ + ".weight_zero_point"] = zeros;
  const auto opened = older.open();
  const auto read = (*opened)->weight(kQ);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(std::get<GroupedWeight>(*read).zeros, expected.zeros);
  EXPECT_EQ(std::get<GroupedWeight>(*read).codes, expected.codes);
}

TEST(Checkpoint, ReadsTheOlderKeysOfAwq) {
  EditedCheckpoint older("awq");
  Json& config = older.config["quantization_config"];
  config = {{"quant_method", "awq"}, {"w_bit", 4}, {"q_group_size", 32}, {"version", "GEMM"}};
  const auto opened = older.open();
  ASSERT_TRUE(opened) << opened.error().message;
  EXPECT_EQ((*opened)->weight_info(kQ).value().group_size, 32);
}

TEST(SplitRowGroups, RepeatsTheScaleOfARow) {
  GroupedWeight weight;
  weight.rows = 2;
  weight.columns = 256;
  weight.group_size = 256;
  weight.codes.resize(512, 3);
  weight.scales = {1.0f, 2.0f};
  weight.zeros = {4, 5};
  const GroupedWeight split = split_row_groups(weight);
  EXPECT_EQ(split.group_size, 128);
  EXPECT_THAT(split.scales, testing::ElementsAre(1.0f, 1.0f, 2.0f, 2.0f));
  EXPECT_THAT(split.zeros, testing::ElementsAre(4, 4, 5, 5));
}

}  // namespace
}  // namespace quern
