// What a config may say, and every way in which it is refused.
#include <cmath>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "model/families/families.h"
#include "model/families/rope.h"
#include "model/test_support.h"

namespace quern {
namespace {

using test::EditedCheckpoint;
using test::EditTensor;
using testing::ElementsAre;
using testing::HasSubstr;

// A JSON merge patch (null removes) to a golden config, and what the error must say.
struct Refusal {
  const char* golden;
  const char* patch;
  const char* message;
};

void PrintTo(const Refusal& refusal, std::ostream* out) { *out << refusal.patch; }

constexpr Refusal kRefusals[] = {
    {"llama31", R"({"architectures": null})", "\"architectures\" is missing"},
    {"llama31", R"({"architectures": []})", "\"architectures\" is []"},
    {"llama31", R"({"architectures": ["A", "B"]})", "expected an array with one name"},
    {"llama31", R"({"architectures": ["GPT2LMHeadModel"]})",
     "the architecture \"GPT2LMHeadModel\" is not supported; known are LlamaForCausalLM, "
     "MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM"},
    {"llama31", R"({"vocab_size": null})", "\"vocab_size\" is missing"},
    {"llama31", R"({"vocab_size": 0})", "\"vocab_size\" is 0"},
    {"llama31", R"({"vocab_size": 99999999})", "\"vocab_size\" is 99999999"},
    {"llama31", R"({"hidden_size": "64"})", "\"hidden_size\" is \"64\""},
    {"llama31", R"({"hidden_size": -64})", "\"hidden_size\" is -64"},
    {"llama31", R"({"intermediate_size": 2097152})", "\"intermediate_size\" is 2097152"},
    {"llama31", R"({"num_hidden_layers": 0})", "\"num_hidden_layers\" is 0"},
    {"llama31", R"({"num_hidden_layers": 1025})", "\"num_hidden_layers\" is 1025"},
    {"llama31", R"({"num_attention_heads": 0})", "\"num_attention_heads\" is 0"},
    {"llama31", R"({"num_attention_heads": 5, "num_key_value_heads": 5, "head_dim": null})",
     "expected a divisor of \"hidden_size\", 64"},
    {"llama31", R"({"num_key_value_heads": 3})",
     "\"num_key_value_heads\" is 3; expected a divisor of \"num_attention_heads\", 4"},
    {"llama31", R"({"head_dim": 15})", "the width of a head is 15; expected an even number"},
    {"llama31", R"({"head_dim": 1024})", "\"head_dim\" is 1024"},
    {"llama31", R"({"hidden_size": 4096, "head_dim": null})", "the width of a head is 1024"},
    {"llama31", R"({"hidden_act": "gelu"})", "\"hidden_act\" is \"gelu\"; supported is \"silu\""},
    {"llama31", R"({"rms_norm_eps": 0})", "\"rms_norm_eps\" is 0"},
    {"llama31", R"({"rms_norm_eps": "small"})", "\"rms_norm_eps\" is \"small\""},
    {"llama31", R"({"tie_word_embeddings": 1})", "\"tie_word_embeddings\" is 1"},
    {"llama31", R"({"max_position_embeddings": null})", "\"max_position_embeddings\" is missing"},
    {"llama31", R"({"attention_bias": "yes"})", "\"attention_bias\" is \"yes\""},
    {"llama31", R"({"mlp_bias": "yes"})", "\"mlp_bias\" is \"yes\""},
    {"llama31", R"({"rope_parameters": 7})", "rope_parameters is not an object"},
    {"llama31", R"({"rope_parameters": null, "rope_scaling": []})",
     "rope_scaling is not an object"},
    {"llama31", R"({"rope_parameters": {"rope_type": "spiral"}})",
     "the rope type \"spiral\" is not supported; known are default, linear, dynamic, llama3, "
     "yarn, longrope"},
    {"llama31", R"({"rope_parameters": {"rope_theta": 0}})", "\"rope_theta\" is 0"},
    {"llama31", R"({"rope_parameters": null, "rope_theta": -1})", "\"rope_theta\" is -1"},
    {"llama31", R"({"rope_parameters": {"factor": null}})", "\"factor\" is missing"},
    {"llama31", R"({"rope_parameters": {"factor": 0.5}})", "\"factor\" is 0.5"},
    {"llama31", R"({"rope_parameters": {"low_freq_factor": 4.0}})",
     "\"high_freq_factor\" is 4; expected more than \"low_freq_factor\", 4"},
    {"llama31", R"({"rope_parameters": {"original_max_position_embeddings": 0}})",
     "\"original_max_position_embeddings\" is 0"},
    {"llama31", R"({"rope_parameters": {"partial_rotary_factor": 0.5}})",
     "\"partial_rotary_factor\" is 0.5; supported is 1"},
    {"llama31", R"({"partial_rotary_factor": 0.5})", "\"partial_rotary_factor\" is 0.5"},
    {"llama31", R"({"rope_parameters": {"rope_type": "yarn", "attention_factor": -1}})",
     "\"attention_factor\" is -1"},
    {"llama31", R"({"rope_parameters": {"rope_type": "longrope"}})",
     "\"short_factor\" is missing; expected 8 numbers"},
    {"llama31", R"({"rope_parameters": {"rope_type": "longrope", "short_factor": 1}})",
     "\"short_factor\" is not an array"},
    {"llama31", R"({"rope_parameters": {"rope_type": "longrope", "short_factor": [1, 1]}})",
     "\"short_factor\" is 2 long; expected 8"},
    {"llama31",
     R"({"rope_parameters": {"rope_type": "longrope", "short_factor": [1,1,1,1,1,1,1,0]}})",
     "\"short_factor\" is not of such numbers"},
    {"llama31",
     R"({"rope_parameters": {"rope_type": "longrope", "short_factor": [1,1,1,1,1,1,1,1],
         "long_factor": [1,1,1,1,1,1,1,2]}})",
     "\"short_factor\" and \"long_factor\" differ"},
    {"llama31", R"({"eos_token_id": 128})",
     "\"eos_token_id\" has 128; expected token ids from 0 to 127"},
    {"llama31", R"({"eos_token_id": [2, "x"]})", "\"eos_token_id\" has \"x\""},
    {"llama31", R"({"bos_token_id": -1})", "\"bos_token_id\" has -1"},
    {"mistral", R"({"sliding_window": 0})", "\"sliding_window\" is 0"},
    {"mistral", R"({"layer_types": ["full_attention"]})",
     "\"layer_types\" is not an array of 2 names"},
    {"mistral", R"({"layer_types": ["full_attention", "chunked_attention"]})",
     "\"layer_types\" has \"chunked_attention\""},
    {"qwen2", R"({"use_sliding_window": false})",
     "\"layer_types\" has \"sliding_attention\" where no sliding window"},
    {"qwen2", R"({"use_sliding_window": 1})", "\"use_sliding_window\" is 1"},
    {"qwen2", R"({"max_window_layers": -1})", "\"max_window_layers\" is -1"},
    // Against the tensors.
    {"llama31", R"({"vocab_size": 256})",
     "model.embed_tokens.weight has 128 rows and 64 columns; the configuration asks for 256 and "
     "64"},
    {"llama31", R"({"intermediate_size": 128})",
     "model.layers.0.mlp.gate_proj.weight has 96 rows and 64 columns; the configuration asks for "
     "128 and 64"},
    {"llama31", R"({"num_key_value_heads": 4})",
     "model.layers.0.self_attn.k_proj.weight has 32 rows"},
    {"llama31", R"({"num_hidden_layers": 1})",
     "model.layers.1.input_layernorm.weight is there; the configuration has 1 layers"},
    {"llama31", R"({"num_hidden_layers": 3})", "model.layers.2.input_layernorm.weight is missing"},
    {"llama31", R"({"attention_bias": true})",
     "model.layers.0.self_attn.q_proj.bias is missing; the configuration asks for one"},
    {"llama_bias", R"({"attention_bias": false})",
     "model.layers.0.self_attn.q_proj.bias is there; the configuration asks for none"},
    {"qwen3", R"({"architectures": ["LlamaForCausalLM"]})",
     "model.layers.0.self_attn.q_norm.weight is there; this architecture has no such norm"},
    {"llama31", R"({"architectures": ["Qwen3ForCausalLM"]})",
     "model.layers.0.self_attn.q_norm.weight is missing"},
    {"qwen3", R"({"tie_word_embeddings": false})", "lm_head.weight"},
};

class RefusedConfig : public testing::TestWithParam<Refusal> {};

TEST_P(RefusedConfig, NamesWhatIsWrong) {
  EditedCheckpoint checkpoint(GetParam().golden);
  checkpoint.config.merge_patch(Json::parse(GetParam().patch));
  const auto opened = checkpoint.open();
  ASSERT_TRUE(opened) << opened.error().message;
  const auto spec = read_spec(**opened);
  ASSERT_FALSE(spec);
  EXPECT_THAT(spec.error().message, HasSubstr(GetParam().message));
  EXPECT_THAT(spec.error().message, HasSubstr(checkpoint.path().string()));
}

INSTANTIATE_TEST_SUITE_P(Fields, RefusedConfig, testing::ValuesIn(kRefusals));

ModelSpec spec_of(const EditedCheckpoint& checkpoint) {
  const auto opened = checkpoint.open();
  EXPECT_TRUE(opened) << opened.error().message;
  auto spec = read_spec(**opened);
  EXPECT_TRUE(spec) << spec.error().message;
  return std::move(spec).value();
}

std::vector<int64_t> windows(const ModelSpec& spec) {
  std::vector<int64_t> out;
  for (const BlockSpec& block : spec.blocks) {
    const auto* attention = std::get_if<AttentionSpec>(&block.mixer);
    if (attention != nullptr) out.push_back(attention->window);
  }
  return out;
}

TEST(ReadSpec, AnswersWithSizesAndNames) {
  const ModelSpec spec = spec_of(EditedCheckpoint("llama31"));
  EXPECT_EQ(spec.architecture, "LlamaForCausalLM");
  EXPECT_EQ(spec.vocabulary, 128);
  EXPECT_EQ(spec.hidden, 64);
  EXPECT_EQ(spec.max_context, 512);
  ASSERT_EQ(spec.blocks.size(), 4u);
  const auto& attention = std::get<AttentionSpec>(spec.blocks[2].mixer);
  EXPECT_EQ(attention.k.name, "model.layers.1.self_attn.k_proj");
  EXPECT_EQ(attention.k.out, 32);
  EXPECT_FALSE(spec.tied_head());
  EXPECT_EQ(spec.bos_token, 1);
  EXPECT_THAT(spec.eos_tokens, ElementsAre(2));
}

TEST(ReadSpec, PrefersTheEndTokensOfTheGenerationConfig) {
  EditedCheckpoint checkpoint("llama31");
  checkpoint.generation = {{"eos_token_id", {5, 6}}};
  const ModelSpec spec = spec_of(checkpoint);
  EXPECT_THAT(spec.eos_tokens, ElementsAre(5, 6));
  EXPECT_EQ(spec.bos_token, 1);
  checkpoint.generation = {{"eos_token_id", 500}};
  const auto opened = checkpoint.open();
  const auto refused = read_spec(**opened);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("generation_config.json: \"eos_token_id\""));
}

TEST(ReadSpec, RefusesMoreEndTokensThanItsLimit) {
  EditedCheckpoint checkpoint("llama31");
  checkpoint.config["eos_token_id"] = std::vector<int>(65, 2);
  const auto opened = checkpoint.open();
  const auto refused = read_spec(**opened);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("\"eos_token_id\" has 65 token ids"));
}

TEST(ReadSpec, UsesTheWindowThatAConfigGives) {
  EditedCheckpoint mistral("mistral");
  EXPECT_THAT(windows(spec_of(mistral)), ElementsAre(16, 16));
  mistral.config["sliding_window"] = nullptr;
  EXPECT_THAT(windows(spec_of(mistral)), ElementsAre(0, 0));
  mistral.config.erase("sliding_window");
  EXPECT_THAT(windows(spec_of(mistral)), ElementsAre(4096, 4096));

  EditedCheckpoint qwen("qwen2");
  EXPECT_THAT(windows(spec_of(qwen)), ElementsAre(0, 16));
  qwen.config.erase("layer_types");
  EXPECT_THAT(windows(spec_of(qwen)), ElementsAre(0, 16));
  qwen.config["use_sliding_window"] = false;
  EXPECT_THAT(windows(spec_of(qwen)), ElementsAre(0, 0));
}

TEST(ReadSpec, RefusesAMatrixOfThreeDimensions) {
  EditedCheckpoint checkpoint("llama31");
  checkpoint.tensors["model.layers.0.mlp.up_proj.weight"].shape = {96, 8, 8};
  const auto opened = checkpoint.open();
  const auto refused = read_spec(**opened);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message,
              HasSubstr("model.layers.0.mlp.up_proj.weight has 3 dimensions; expected 2"));
}

TEST(ReadSpec, NamesAMatrixThatIsMissing) {
  EditedCheckpoint checkpoint("llama31");
  checkpoint.tensors.erase("model.layers.1.mlp.down_proj.weight");
  const auto opened = checkpoint.open();
  const auto refused = read_spec(**opened);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(refused.error().message, HasSubstr("model.layers.1.mlp.down_proj.weight"));
}

TEST(ReadSpec, NamesTheFinalNormThatIsMissing) {
  EditedCheckpoint checkpoint("llama31");
  checkpoint.tensors.erase("model.norm.weight");
  const auto opened = checkpoint.open();
  const auto refused = read_spec(**opened);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("model.norm.weight is missing"));
}

TEST(Rope, AgreesWithTheReferenceImplementation) {
  const std::string text = read_file(test::golden("ropes.json"), 1 << 20).value();
  const Json goldens = parse_json(text, "ropes.json").value();
  for (const Json& golden : goldens["cases"]) {
    SCOPED_TRACE(golden["rope_parameters"].dump());
    const Json config = {{"rope_parameters", golden["rope_parameters"]}};
    const auto rope =
        read_rope(JsonObject(config, "config.json"), golden["head_dim"], golden["max_positions"]);
    ASSERT_TRUE(rope) << rope.error().message;
    EXPECT_NEAR(rope->params.attention_factor, golden["attention_factor"].get<double>(), 1e-6);
    const Json& frequencies = golden["inverse_frequencies"];
    ASSERT_EQ(rope->params.inverse_frequencies.size(), frequencies.size());
    for (size_t i = 0; i < frequencies.size(); ++i) {
      const double expected = frequencies[i];  // of float32 arithmetic
      EXPECT_NEAR(rope->params.inverse_frequencies[i], expected, 2e-6 * expected);
    }
  }
}

TEST(Rope, ReadsOldAndNewKeysAlike) {
  const Json scaling = {{"type", "linear"}, {"factor", 2.0}};
  const Json old_style = {{"rope_theta", 5e5}, {"rope_scaling", scaling}};
  const Json new_style = {
      {"rope_parameters", {{"rope_type", "linear"}, {"factor", 2.0}, {"rope_theta", 5e5}}}};
  const auto a = read_rope(JsonObject(old_style, "old"), 64, 4096);
  const auto b = read_rope(JsonObject(new_style, "new"), 64, 4096);
  ASSERT_TRUE(a && b);
  EXPECT_EQ(a->params.inverse_frequencies, b->params.inverse_frequencies);
  EXPECT_DOUBLE_EQ(a->params.inverse_frequencies[0], 0.5);
}

TEST(Rope, StatesHowFarAnExtensionReaches) {
  const auto reach = [](const char* scaling) {
    const Json config = {{"rope_scaling", Json::parse(scaling)}};
    return read_rope(JsonObject(config, "config.json"), 64, 32768).value().max_context;
  };
  EXPECT_EQ(reach(R"({"type": "yarn", "factor": 4.0,
                      "original_max_position_embeddings": 32768})"),
            131072);
  EXPECT_EQ(reach(R"({"type": "dynamic", "factor": 4.0})"), 32768);
  EXPECT_EQ(reach(R"({"type": "dynamic", "factor": 4.0,
                      "original_max_position_embeddings": 8192})"),
            8192);
  EXPECT_EQ(reach(R"({"type": "linear", "factor": 4.0})"), 32768);
}

TEST(Spec, ListsTheLayersOfABlockInTheOrderOfAForwardPass) {
  const ModelSpec spec = spec_of(EditedCheckpoint("llama31"));
  std::vector<std::string> names;
  for (size_t i = 0; i < 2; ++i) {
    for (const LinearSpec* linear : linears(spec.blocks[i])) names.push_back(linear->name);
  }
  const std::string prefix = "model.layers.0.";
  EXPECT_THAT(names, ElementsAre(prefix + "self_attn.q_proj", prefix + "self_attn.k_proj",
                                 prefix + "self_attn.v_proj", prefix + "self_attn.o_proj",
                                 prefix + "mlp.gate_proj", prefix + "mlp.up_proj",
                                 prefix + "mlp.down_proj"));
}

}  // namespace
}  // namespace quern
