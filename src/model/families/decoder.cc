#include "model/families/decoder.h"

#include <fmt/format.h>

#include "model/families/rope.h"

namespace quern {
namespace {

// Far beyond every published model, small enough that products of any three fit 64 bits.
constexpr int64_t kMaxVocabulary = int64_t{1} << 22;
constexpr int64_t kMaxHidden = int64_t{1} << 17;
constexpr int64_t kMaxIntermediate = int64_t{1} << 20;
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxHeads = 1024;
constexpr int64_t kMaxHeadDim = 512;
constexpr int64_t kMaxPositions = int64_t{1} << 30;

Error invalid(const JsonObject& config, const std::string& what) {
  return {ErrorCode::kInvalidArgument, fmt::format("{}: {}", config.source(), what)};
}

Result<Unit> read_heads(const JsonObject& config, DecoderConfig& out) {
  out.heads = static_cast<int>(
      QUERN_TRY(config.integer("num_attention_heads", std::nullopt, 1, kMaxHeads)));
  out.kv_heads =
      static_cast<int>(QUERN_TRY(config.integer("num_key_value_heads", out.heads, 1, kMaxHeads)));
  if (out.heads % out.kv_heads != 0) {
    return invalid(config, fmt::format("\"num_key_value_heads\" is {}; expected a divisor of "
                                       "\"num_attention_heads\", {}",
                                       out.kv_heads, out.heads));
  }
  if (config.find("head_dim") == nullptr && out.hidden % out.heads != 0) {
    return invalid(config, fmt::format("\"num_attention_heads\" is {}; expected a divisor of "
                                       "\"hidden_size\", {}, where \"head_dim\" is not given",
                                       out.heads, out.hidden));
  }
  const int64_t quotient = out.hidden / out.heads;
  out.head_dim = static_cast<int>(QUERN_TRY(config.integer("head_dim", quotient, 2, kMaxHeadDim)));
  if (out.head_dim < 2 || out.head_dim > kMaxHeadDim || out.head_dim % 2 != 0) {
    return invalid(config, fmt::format("the width of a head is {}; expected an even number from 2 "
                                       "to {}",
                                       out.head_dim, kMaxHeadDim));
  }
  return Unit{};
}

Result<Unit> require_silu(const JsonObject& config) {
  const std::string activation = QUERN_TRY(config.string("hidden_act", "silu"));
  if (activation == "silu" || activation == "swish") return Unit{};
  return Error{ErrorCode::kUnsupported,
               fmt::format("{}: \"hidden_act\" is \"{}\"; supported is \"silu\"", config.source(),
                           activation)};
}

// Names and shapes of the layers of one decoder layer.
class LayerNames {
 public:
  LayerNames(const DecoderConfig& config, int layer)
      : config_(config), prefix_(fmt::format("model.layers.{}", layer)) {}

  NormSpec norm(std::string_view name, int64_t width) const {
    return {fmt::format("{}.{}", prefix_, name), width, config_.eps};
  }

  LinearSpec linear(std::string_view name, int64_t in, int64_t out, Bias bias) const {
    return {fmt::format("{}.{}", prefix_, name), in, out, bias == Bias::kHas};
  }

 private:
  const DecoderConfig& config_;
  std::string prefix_;
};

AttentionSpec attention_spec(const DecoderConfig& c, const LayerNames& names, int64_t window) {
  const int64_t query_width = int64_t{c.heads} * c.head_dim;
  const int64_t key_width = int64_t{c.kv_heads} * c.head_dim;
  AttentionSpec spec;
  spec.q = names.linear("self_attn.q_proj", c.hidden, query_width, c.qkv_bias);
  spec.k = names.linear("self_attn.k_proj", c.hidden, key_width, c.qkv_bias);
  spec.v = names.linear("self_attn.v_proj", c.hidden, key_width, c.qkv_bias);
  spec.o = names.linear("self_attn.o_proj", query_width, c.hidden, c.o_bias);
  spec.heads = c.heads;
  spec.kv_heads = c.kv_heads;
  spec.head_dim = c.head_dim;
  spec.rope = c.rope;
  spec.window = window;
  if (c.head_norms) {
    spec.q_norm = names.norm("self_attn.q_norm", c.head_dim);
    spec.k_norm = names.norm("self_attn.k_norm", c.head_dim);
  }
  return spec;
}

MlpSpec mlp_spec(const DecoderConfig& c, const LayerNames& names) {
  return {names.linear("mlp.gate_proj", c.hidden, c.intermediate, c.mlp_bias),
          names.linear("mlp.up_proj", c.hidden, c.intermediate, c.mlp_bias),
          names.linear("mlp.down_proj", c.intermediate, c.hidden, c.mlp_bias)};
}

// "layer_types" as windows, one a layer.
Result<std::vector<int64_t>> windows_of_types(const JsonObject& config,
                                              const Json& types,
                                              int layers,
                                              int64_t window) {
  if (!types.is_array() || types.size() != static_cast<size_t>(layers)) {
    return invalid(config, fmt::format("\"layer_types\" is not an array of {} names, one for each "
                                       "of \"num_hidden_layers\"",
                                       layers));
  }
  std::vector<int64_t> windows;
  for (const Json& type : types) {
    const bool sliding = type == "sliding_attention";
    if (!sliding && type != "full_attention") {
      return Error{ErrorCode::kUnsupported,
                   fmt::format("{}: \"layer_types\" has {}; supported are \"full_attention\" and "
                               "\"sliding_attention\"",
                               config.source(), type.dump())};
    }
    if (sliding && window == 0) {
      return invalid(config,
                     "\"layer_types\" has \"sliding_attention\" where no sliding window "
                     "is given or in use");
    }
    windows.push_back(sliding ? window : 0);
  }
  return windows;
}

}  // namespace

Result<DecoderConfig> read_decoder_config(const JsonObject& config) {
  DecoderConfig out;
  const std::optional<int64_t> required;
  out.vocabulary = QUERN_TRY(config.integer("vocab_size", required, 1, kMaxVocabulary));
  out.hidden = QUERN_TRY(config.integer("hidden_size", required, 1, kMaxHidden));
  out.intermediate = QUERN_TRY(config.integer("intermediate_size", required, 1, kMaxIntermediate));
  out.layers =
      static_cast<int>(QUERN_TRY(config.integer("num_hidden_layers", required, 1, kMaxLayers)));
  QUERN_TRY(read_heads(config, out));
  QUERN_TRY(require_silu(config));
  const double eps = QUERN_TRY(config.number("rms_norm_eps", 1e-6));
  if (!(eps > 0.0 && eps < 1.0)) {
    return invalid(config,
                   fmt::format("\"rms_norm_eps\" is {}; expected a number between 0 and 1", eps));
  }
  out.eps = static_cast<float>(eps);
  out.tied_head = QUERN_TRY(config.boolean("tie_word_embeddings", false));
  const int64_t positions =
      QUERN_TRY(config.integer("max_position_embeddings", required, 1, kMaxPositions));
  RopeConfig rope = QUERN_TRY(read_rope(config, out.head_dim, positions));
  out.rope = std::move(rope.params);
  out.max_context = rope.max_context;
  return out;
}

Result<std::vector<int64_t>> read_windows(const JsonObject& config,
                                          int layers,
                                          int64_t window,
                                          int64_t first_sliding) {
  const Json* types = config.find("layer_types");
  if (types != nullptr) return windows_of_types(config, *types, layers, window);
  std::vector<int64_t> windows;
  windows.reserve(static_cast<size_t>(layers));
  for (int layer = 0; layer < layers; ++layer) {
    windows.push_back(layer >= first_sliding ? window : 0);
  }
  return windows;
}

ModelSpec decoder_spec(const DecoderConfig& config) {
  ModelSpec spec;
  spec.vocabulary = config.vocabulary;
  spec.hidden = config.hidden;
  spec.max_context = config.max_context;
  spec.embedding = "model.embed_tokens";
  for (int layer = 0; layer < config.layers; ++layer) {
    const LayerNames names(config, layer);
    const int64_t window = config.windows.empty() ? 0 : config.windows[static_cast<size_t>(layer)];
    spec.blocks.push_back(
        {names.norm("input_layernorm", config.hidden), attention_spec(config, names, window)});
    spec.blocks.push_back(
        {names.norm("post_attention_layernorm", config.hidden), mlp_spec(config, names)});
  }
  spec.final_norm = {"model.norm", config.hidden, config.eps};
  spec.head = {config.tied_head ? spec.embedding : "lm_head", config.hidden, config.vocabulary,
               false};
  return spec;
}

}  // namespace quern
