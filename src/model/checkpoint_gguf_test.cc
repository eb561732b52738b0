// What a GGUF file says in Hugging Face's words, and every way in which one is refused.
#include <cstring>
#include <functional>
#include <map>
#include <variant>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "base/file.h"
#include "model/gguf_config.h"
#include "model/test_support.h"

namespace quern {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr uint32_t kTypeF32 = 0;
constexpr uint32_t kTypeIq1S = 19;  // of ggml, without a reader here

using Value =
    std::variant<uint32_t, float, std::string, std::vector<std::string>, std::vector<int32_t>>;

struct FileTensor {
  std::vector<int64_t> shape;  // row-major
  uint32_t type = kTypeF32;
  float fill = 0.5f;
};

// A tiny GGUF file to be changed and written: little-endian version 3.
struct GgufBuilder {
  std::map<std::string, Value> metadata;
  std::map<std::string, FileTensor> tensors;

  // One layer, 2 heads of 4, every tensor F32.
  static GgufBuilder llama();

  std::string bytes() const;
};

class Writer {
 public:
  template <typename T>
  void number(T value) {
    out_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }

  void string(const std::string& text) {
    number<uint64_t>(text.size());
    out_ += text;
  }

  void value(const Value& v) {
    number<uint32_t>(std::array<uint32_t, 5>{4, 6, 8, 9, 9}[v.index()]);
    if (const auto* u = std::get_if<uint32_t>(&v)) number(*u);
    if (const auto* f = std::get_if<float>(&v)) number(*f);
    if (const auto* s = std::get_if<std::string>(&v)) string(*s);
    if (const auto* texts = std::get_if<std::vector<std::string>>(&v)) {
      number<uint32_t>(8);
      number<uint64_t>(texts->size());
      for (const std::string& text : *texts) string(text);
    }
    if (const auto* numbers = std::get_if<std::vector<int32_t>>(&v)) {
      number<uint32_t>(5);
      number<uint64_t>(numbers->size());
      for (const int32_t n : *numbers) number(n);
    }
  }

  void align() { out_.resize((out_.size() + 31) / 32 * 32); }

  std::string& out() { return out_; }

 private:
  std::string out_;
};

uint64_t tensor_bytes(const FileTensor& tensor) {
  uint64_t elements = 1;
  for (const int64_t dim : tensor.shape) elements *= static_cast<uint64_t>(dim);
  return tensor.type == kTypeF32 ? elements * 4 : elements / 256 * 50;
}

std::string GgufBuilder::bytes() const {
  Writer writer;
  writer.out() = "GGUF";
  writer.number<uint32_t>(3);
  writer.number<uint64_t>(tensors.size());
  writer.number<uint64_t>(metadata.size());
  for (const auto& [key, value] : metadata) {
    writer.string(key);
    writer.value(value);
  }
  uint64_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    writer.string(name);
    writer.number<uint32_t>(static_cast<uint32_t>(tensor.shape.size()));
    for (size_t i = tensor.shape.size(); i-- > 0;) writer.number(tensor.shape[i]);
    writer.number(tensor.type);
    writer.number(offset);
    offset += (tensor_bytes(tensor) + 31) / 32 * 32;
  }
  writer.align();
  for (const auto& [name, tensor] : tensors) {
    for (uint64_t i = 0; i < tensor_bytes(tensor) / 4; ++i) writer.number(tensor.fill);
    writer.align();
  }
  return writer.out();
}

GgufBuilder GgufBuilder::llama() {
  GgufBuilder file;
  file.metadata = {
      {"general.architecture", "llama"},   {"llama.embedding_length", 8u},
      {"llama.block_count", 1u},           {"llama.feed_forward_length", 16u},
      {"llama.attention.head_count", 2u},  {"llama.attention.head_count_kv", 1u},
      {"llama.context_length", 64u},       {"llama.attention.layer_norm_rms_epsilon", 1e-5f},
      {"tokenizer.ggml.eos_token_id", 2u}, {"tokenizer.ggml.bos_token_id", 1u}};
  file.tensors = {{"token_embd.weight", {{32, 8}}},       {"output_norm.weight", {{8}}},
                  {"blk.0.attn_norm.weight", {{8}}},      {"blk.0.attn_q.weight", {{8, 8}}},
                  {"blk.0.attn_k.weight", {{4, 8}}},      {"blk.0.attn_v.weight", {{4, 8}}},
                  {"blk.0.attn_output.weight", {{8, 8}}}, {"blk.0.ffn_norm.weight", {{8}}},
                  {"blk.0.ffn_gate.weight", {{16, 8}}},   {"blk.0.ffn_up.weight", {{16, 8}}},
                  {"blk.0.ffn_down.weight", {{8, 16}}}};
  return file;
}

// The file on disk for the lifetime of the object.
class TemporaryGguf {
 public:
  explicit TemporaryGguf(const GgufBuilder& builder) {
    static int count = 0;
    path_ = std::filesystem::temp_directory_path() /
            fmt::format("quern_gguf_test_{}_{}.gguf", ::getpid(), count++);
    write_file(path_, builder.bytes());
  }

  TemporaryGguf(const TemporaryGguf&) = delete;
  TemporaryGguf& operator=(const TemporaryGguf&) = delete;

  ~TemporaryGguf() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }

  Result<std::unique_ptr<Checkpoint>> open() const { return Checkpoint::open(path_); }

 private:
  std::filesystem::path path_;
};

std::string failure(const GgufBuilder& builder) {
  const TemporaryGguf file(builder);
  const auto checkpoint = file.open();
  if (!checkpoint) return checkpoint.error().message;
  const auto backend = test::backend("ref");
  LoadOptions options;
  options.limits.kv_blocks = 1;
  const auto model = load_model(**checkpoint, *backend, options, nullptr);
  return model ? "" : model.error().message;
}

TEST(GgufCheckpoint, LoadsATinyFile) { EXPECT_EQ(failure(GgufBuilder::llama()), ""); }

TEST(GgufCheckpoint, SpeaksTheWordsOfHuggingFace) {
  GgufBuilder builder = GgufBuilder::llama();
  builder.metadata["llama.rope.freq_base"] = 5e5f;
  builder.metadata["llama.rope.scaling.type"] = "linear";
  builder.metadata["llama.rope.scaling.factor"] = 2.0f;
  builder.metadata["llama.rope.scaling.original_context_length"] = 32u;
  builder.metadata["tokenizer.ggml.eot_token_id"] = 5u;
  builder.metadata["tokenizer.ggml.tokens"] =
      std::vector<std::string>{"<|endoftext|>", "a", "<|im_end|>", "<|eot_id|>"};
  builder.metadata["tokenizer.ggml.token_type"] = std::vector<int32_t>{3, 1, 3, 1};
  const TemporaryGguf file(builder);
  const auto checkpoint = file.open();
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  const Json& config = (*checkpoint)->config();
  EXPECT_EQ(config["architectures"][0], "LlamaForCausalLM");
  EXPECT_EQ(config["model_type"], "llama");  // transformers cannot load a directory without it
  EXPECT_EQ(config["hidden_size"], 8);
  EXPECT_EQ(config["vocab_size"], 32);
  EXPECT_EQ(config["tie_word_embeddings"], true);
  EXPECT_EQ(config["rope_theta"], 5e5);
  EXPECT_EQ(config["rope_scaling"]["rope_type"], "linear");
  EXPECT_EQ(config["rope_scaling"]["original_max_position_embeddings"], 32);
  // eos and eot by their keys, then control tokens with texts that end an answer.
  EXPECT_THAT((*checkpoint)->generation_config()["eos_token_id"].get<std::vector<int>>(),
              ElementsAre(2, 5, 0));
  EXPECT_EQ((*checkpoint)->generation_config()["bos_token_id"], 1);
  EXPECT_EQ((*checkpoint)->weight_info("model.layers.0.mlp.up_proj").value().format, "F32");
  EXPECT_EQ((*checkpoint)->tensors().size(), builder.tensors.size());
}

TEST(GgufCheckpoint, TakesAWindowAsMistrals) {
  GgufBuilder builder = GgufBuilder::llama();
  builder.metadata["llama.attention.sliding_window"] = 8u;
  const TemporaryGguf file(builder);
  const auto checkpoint = file.open();
  const auto spec = read_spec(**checkpoint);
  ASSERT_TRUE(spec) << spec.error().message;
  EXPECT_EQ(spec->architecture, "MistralForCausalLM");
  EXPECT_EQ(std::get<AttentionSpec>(spec->blocks[0].mixer).window, 8);
}

TEST(GgufName, MapsModulesToGgufsNames) {
  EXPECT_EQ(gguf_name("model.embed_tokens.weight"), "token_embd.weight");
  EXPECT_EQ(gguf_name("lm_head.weight"), "output.weight");
  EXPECT_EQ(gguf_name("model.norm.weight"), "output_norm.weight");
  EXPECT_EQ(gguf_name("model.layers.12.self_attn.k_proj.bias"), "blk.12.attn_k.bias");
  EXPECT_EQ(gguf_name("model.layers.3.mlp.unknown.weight"), std::nullopt);
  EXPECT_EQ(gguf_name("model.layers.weight"), std::nullopt);
  EXPECT_EQ(gguf_name("elsewhere.weight"), std::nullopt);
  EXPECT_EQ(gguf_name("nodot"), std::nullopt);
}

struct BrokenFile {
  std::string name;
  std::function<void(GgufBuilder&)> change;
  std::string message;
};

void PrintTo(const BrokenFile& broken, std::ostream* out) { *out << broken.name; }

std::vector<BrokenFile> broken_files() {
  return {
      {"UnknownArchitecture", [](auto& f) { f.metadata["general.architecture"] = "rwkv6"; },
       "the architecture \"rwkv6\" is not supported; known are llama, qwen2, qwen3"},
      {"NoArchitecture", [](auto& f) { f.metadata.erase("general.architecture"); },
       "general.architecture"},
      {"Experts", [](auto& f) { f.metadata["llama.expert_count"] = 8u; },
       "a mixture of 8 experts is not supported"},
      {"Parts", [](auto& f) { f.metadata["split.count"] = 3u; }, "one of 3 parts"},
      {"NarrowerValues", [](auto& f) { f.metadata["llama.attention.value_length"] = 2u; },
       "\"llama.attention.value_length\" is 2; supported is the width of a head, 4"},
      {"PartialRotation", [](auto& f) { f.metadata["llama.rope.dimension_count"] = 2u; },
       "\"llama.rope.dimension_count\" is 2"},
      {"NoHeads", [](auto& f) { f.metadata["llama.attention.head_count"] = 0u; },
       "llama.attention.head_count"},
      {"WrongType", [](auto& f) { f.metadata["llama.embedding_length"] = "wide"; },
       "llama.embedding_length"},
      {"NoContext", [](auto& f) { f.metadata.erase("llama.context_length"); },
       "\"max_position_embeddings\" is missing"},
      {"NoEmbedding", [](auto& f) { f.tensors.erase("token_embd.weight"); },
       "the tensor \"token_embd.weight\" is missing"},
      {"NoMatrix", [](auto& f) { f.tensors.erase("blk.0.ffn_up.weight"); },
       "the tensor \"blk.0.ffn_up.weight\" (model.layers.0.mlp.up_proj.weight) is missing"},
      {"NoNorm", [](auto& f) { f.tensors.erase("blk.0.ffn_norm.weight"); },
       "model.layers.0.post_attention_layernorm.weight is missing"},
      {"ThreeDimensions",
       [](auto& f) {
         f.tensors["blk.0.ffn_up.weight"].shape = {4, 4, 8};
       },
       "the tensor \"blk.0.ffn_up.weight\" has 3 dimensions; expected 2"},
      {"AnotherShape",
       [](auto& f) {
         f.tensors["blk.0.attn_q.weight"].shape = {6, 8};
       },
       "model.layers.0.self_attn.q_proj.weight has 6 rows and 8 columns"},
      {"UnknownStorage",
       [](auto& f) {
         f.tensors["blk.0.ffn_up.weight"] = {{16, 256}, kTypeIq1S, 0.0f};
       },
       "the tensor \"blk.0.ffn_up.weight\" has storage type 19; supported are F32"},
      {"NanInMatrix", [](auto& f) { f.tensors["blk.0.ffn_up.weight"].fill = NAN; },
       "blk.0.ffn_up.weight"},
      {"InfinityInNorm", [](auto& f) { f.tensors["output_norm.weight"].fill = HUGE_VALF; },
       "\"output_norm.weight\" has a NaN or infinite number"},
      {"OddRopeFactors", [](auto& f) { f.tensors["rope_freqs.weight"] = {{3}}; },
       "\"short_factor\" is 3 long; expected 2"},
      {"ZeroRopeFactors",
       [](auto& f) {
         f.tensors["rope_freqs.weight"] = {{2}, kTypeF32, 0.0f};
       },
       "\"short_factor\" is not of such numbers"},
      {"EndTokenBeyondVocabulary", [](auto& f) { f.metadata["tokenizer.ggml.eos_token_id"] = 32u; },
       "\"eos_token_id\" has 32; expected token ids from 0 to 31"},
  };
}

class BrokenGguf : public testing::TestWithParam<BrokenFile> {};

TEST_P(BrokenGguf, NamesWhatIsWrong) {
  GgufBuilder builder = GgufBuilder::llama();
  GetParam().change(builder);
  EXPECT_THAT(failure(builder), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(Files,
                         BrokenGguf,
                         testing::ValuesIn(broken_files()),
                         [](const auto& info) { return info.param.name; });

TEST(GgufCheckpoint, RefusesRowsThatAreNoWholeHeadsWhenAskedForThem) {
  GgufBuilder builder = GgufBuilder::llama();
  builder.tensors["blk.0.attn_q.weight"].shape = {6, 8};
  const TemporaryGguf file(builder);
  const auto checkpoint = file.open();
  ASSERT_TRUE(checkpoint);
  const auto weight = (*checkpoint)->weight("model.layers.0.self_attn.q_proj");
  ASSERT_FALSE(weight);
  EXPECT_THAT(weight.error().message, HasSubstr("has 6 rows; expected 2 heads of an even width"));
}

}  // namespace
}  // namespace quern
