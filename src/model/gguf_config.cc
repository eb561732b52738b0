#include "model/gguf_config.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include <fmt/format.h>

namespace quern {
namespace {

struct Architecture {
  std::string_view name;          // general.architecture
  std::string_view hugging_face;  // config.json's "architectures"
  bool paired_rotation;           // the converter reorders rows of q and k
};

constexpr Architecture kArchitectures[] = {
    {"llama", "LlamaForCausalLM", true},
    {"qwen2", "Qwen2ForCausalLM", false},
    {"qwen3", "Qwen3ForCausalLM", false},
};

struct KeyName {
  std::string_view gguf;  // behind "ARCHITECTURE."
  std::string_view config;
};

constexpr KeyName kIntegers[] = {
    {"embedding_length", "hidden_size"},
    {"block_count", "num_hidden_layers"},
    {"feed_forward_length", "intermediate_size"},
    {"attention.head_count", "num_attention_heads"},
    {"attention.head_count_kv", "num_key_value_heads"},
    {"attention.key_length", "head_dim"},
    {"context_length", "max_position_embeddings"},
};

constexpr KeyName kNumbers[] = {
    {"attention.layer_norm_rms_epsilon", "rms_norm_eps"},
    {"rope.freq_base", "rope_theta"},
};

constexpr KeyName kTensorNames[] = {
    // Behind "blk.N." and "model.layers.N.".
    {"attn_norm", "input_layernorm"},    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},      {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"}, {"attn_q_norm", "self_attn.q_norm"},
    {"attn_k_norm", "self_attn.k_norm"}, {"ffn_norm", "post_attention_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},       {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
};

// Tokens that end an answer whatever the metadata calls the end of text: chat models have several.
constexpr std::string_view kEndTexts[] = {"<|endoftext|>", "<|im_end|>", "<|eot_id|>",
                                          "<|end_of_text|>", "<|eom_id|>"};
constexpr int64_t kControlToken = 3;  // of tokenizer.ggml.token_type

Error unsupported(const GgufFile& file, const std::string& what) {
  return {ErrorCode::kUnsupported, fmt::format("{}: {}", file.source(), what)};
}

Result<const Architecture*> find_architecture(const GgufFile& file) {
  const std::string name = QUERN_TRY(file.string("general.architecture"));
  std::string known;
  for (const Architecture& architecture : kArchitectures) {
    if (architecture.name == name) return &architecture;
    known += fmt::format("{}{}", known.empty() ? "" : ", ", architecture.name);
  }
  return unsupported(
      file, fmt::format("the architecture \"{}\" is not supported; known are {}", name, known));
}

Result<Unit> refuse_mechanisms(const GgufFile& file, std::string_view architecture) {
  const auto key = [&](std::string_view name) { return fmt::format("{}.{}", architecture, name); };
  const int64_t parts = QUERN_TRY(file.integer("split.count", 1));
  if (parts > 1) {
    return unsupported(file, fmt::format("one of {} parts; merge them into one file first", parts));
  }
  const int64_t experts = QUERN_TRY(file.integer(key("expert_count"), 0));
  if (experts > 0) {
    return unsupported(file, fmt::format("a mixture of {} experts is not supported", experts));
  }
  // Heads must be as wide for values as for keys, and turn as a whole.
  for (const std::string_view width : {"attention.value_length", "rope.dimension_count"}) {
    const int64_t hidden = QUERN_TRY(file.integer(key("embedding_length")));
    const int64_t heads = QUERN_TRY(file.integer(key("attention.head_count"), std::nullopt, 1));
    const int64_t head_dim = QUERN_TRY(file.integer(key("attention.key_length"), hidden / heads));
    const int64_t found = QUERN_TRY(file.integer(key(width), head_dim));
    if (found == head_dim) continue;
    return unsupported(file, fmt::format("\"{}\" is {}; supported is the width of a head, {}",
                                         key(width), found, head_dim));
  }
  return Unit{};
}

Result<Unit> copy_keys(const GgufFile& file, std::string_view architecture, Json& config) {
  for (const KeyName& name : kIntegers) {
    const std::string key = fmt::format("{}.{}", architecture, name.gguf);
    if (file.find(key) != nullptr) {
      config[std::string(name.config)] = QUERN_TRY(file.integer(key));
    }
  }
  for (const KeyName& name : kNumbers) {
    const std::string key = fmt::format("{}.{}", architecture, name.gguf);
    if (file.find(key) != nullptr) config[std::string(name.config)] = QUERN_TRY(file.number(key));
  }
  return Unit{};
}

// Llama 3's stretched frequencies come as one divisor for each rotated pair.
Result<std::optional<Json>> rope_of_factors(const GgufFile& file) {
  const GgufTensor* tensor = file.tensor("rope_freqs.weight");
  if (tensor == nullptr) return std::optional<Json>();
  const std::vector<float> factors = QUERN_TRY(read_floats(*tensor));
  return std::optional<Json>({{"rope_type", "longrope"},
                              {"short_factor", factors},
                              {"long_factor", factors},
                              {"attention_factor", 1.0}});
}

Result<std::optional<Json>> rope_of_metadata(const GgufFile& file, std::string_view architecture) {
  const auto key = [&](std::string_view name) {
    return fmt::format("{}.rope.scaling.{}", architecture, name);
  };
  const std::string type = QUERN_TRY(file.string(key("type"), "none"));
  if (type == "none") return std::optional<Json>();
  Json scaling = {{"rope_type", type}, {"factor", QUERN_TRY(file.number(key("factor"), 1.0))}};
  if (file.find(key("original_context_length")) != nullptr) {
    scaling["original_max_position_embeddings"] =
        QUERN_TRY(file.integer(key("original_context_length")));
  }
  return std::optional<Json>(std::move(scaling));
}

Result<Unit> set_rope(const GgufFile& file, std::string_view architecture, Json& config) {
  std::optional<Json> scaling = QUERN_TRY(rope_of_factors(file));
  if (!scaling) scaling = QUERN_TRY(rope_of_metadata(file, architecture));
  if (scaling) config["rope_scaling"] = *std::move(scaling);
  return Unit{};
}

// What a config states and GGUF shows by which tensors are there.
Result<Unit> set_by_tensors(const GgufFile& file, std::string_view architecture, Json& config) {
  const GgufTensor* table = file.tensor("token_embd.weight");
  if (table == nullptr) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: the tensor \"token_embd.weight\" is missing", file.source())};
  }
  config["vocab_size"] = table->rows();
  config["tie_word_embeddings"] = file.tensor("output.weight") == nullptr;
  config["attention_bias"] = file.tensor("blk.0.attn_output.bias") != nullptr;
  config["mlp_bias"] = file.tensor("blk.0.ffn_gate.bias") != nullptr;
  const std::string window = fmt::format("{}.attention.sliding_window", architecture);
  const int64_t sliding = QUERN_TRY(file.integer(window, 0));
  if (sliding == 0) return Unit{};
  config["sliding_window"] = sliding;
  if (architecture == "llama") {
    config["architectures"] = Json::array({"MistralForCausalLM"});
    config["model_type"] = "mistral";
  }
  return Unit{};
}

// Ids of control tokens whose text is one of kEndTexts.
std::vector<int64_t> end_tokens_by_text(const GgufFile& file) {
  std::vector<int64_t> ids;
  const auto texts = file.strings("tokenizer.ggml.tokens");
  const auto types = file.integers("tokenizer.ggml.token_type");
  if (!texts || !types) return ids;
  for (size_t id = 0; id < std::min(texts->size(), types->size()); ++id) {
    const bool ends =
        std::find(std::begin(kEndTexts), std::end(kEndTexts), (*texts)[id]) != std::end(kEndTexts);
    if (ends && (*types)[id] == kControlToken) ids.push_back(static_cast<int64_t>(id));
  }
  return ids;
}

Result<Json> read_generation(const GgufFile& file) {
  Json generation = Json::object();
  std::vector<int64_t> eos;
  for (const std::string_view name : {"eos", "eot", "eom"}) {
    const std::string key = fmt::format("tokenizer.ggml.{}_token_id", name);
    if (file.find(key) != nullptr) eos.push_back(QUERN_TRY(file.integer(key)));
  }
  for (const int64_t id : end_tokens_by_text(file)) eos.push_back(id);
  std::vector<int64_t> unique;
  for (const int64_t id : eos) {
    if (std::find(unique.begin(), unique.end(), id) == unique.end()) unique.push_back(id);
  }
  if (!unique.empty()) generation["eos_token_id"] = unique;
  if (file.find("tokenizer.ggml.bos_token_id") != nullptr) {
    generation["bos_token_id"] = QUERN_TRY(file.integer("tokenizer.ggml.bos_token_id"));
  }
  return generation;
}

}  // namespace

Result<GgufConfig> read_gguf_config(const GgufFile& file) {
  const Architecture* architecture = QUERN_TRY(find_architecture(file));
  QUERN_TRY(refuse_mechanisms(file, architecture->name));
  GgufConfig out;
  // GGUF's names of these architectures are transformers' model types.
  out.config = {{"architectures", Json::array({architecture->hugging_face})},
                {"model_type", architecture->name},
                {"hidden_act", "silu"}};
  QUERN_TRY(copy_keys(file, architecture->name, out.config));
  QUERN_TRY(set_rope(file, architecture->name, out.config));
  QUERN_TRY(set_by_tensors(file, architecture->name, out.config));
  out.generation = QUERN_TRY(read_generation(file));
  out.paired_rotation = architecture->paired_rotation;
  const JsonObject config(out.config, file.source());
  constexpr int64_t kMaxHeads = std::numeric_limits<int>::max();
  out.heads = static_cast<int>(
      QUERN_TRY(config.integer("num_attention_heads", std::nullopt, 1, kMaxHeads)));
  out.kv_heads =
      static_cast<int>(QUERN_TRY(config.integer("num_key_value_heads", out.heads, 1, kMaxHeads)));
  return out;
}

std::optional<std::string> gguf_name(std::string_view name) {
  constexpr std::string_view kLayers = "model.layers.";
  const size_t dot = name.rfind('.');
  if (dot == std::string_view::npos) return std::nullopt;
  const std::string_view module = name.substr(0, dot);
  const std::string_view kind = name.substr(dot);  // ".weight" or ".bias"
  if (module == "model.embed_tokens") return fmt::format("token_embd{}", kind);
  if (module == "model.norm") return fmt::format("output_norm{}", kind);
  if (module == "lm_head") return fmt::format("output{}", kind);
  if (!module.starts_with(kLayers)) return std::nullopt;
  const std::string_view rest = module.substr(kLayers.size());
  const size_t number_end = rest.find('.');
  if (number_end == std::string_view::npos) return std::nullopt;
  for (const KeyName& known : kTensorNames) {
    if (known.config != rest.substr(number_end + 1)) continue;
    return fmt::format("blk.{}.{}{}", rest.substr(0, number_end), known.gguf, kind);
  }
  return std::nullopt;
}

}  // namespace quern
