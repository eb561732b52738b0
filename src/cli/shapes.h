// Shapes of published models, for `quern synth`.
#pragma once

#include <string_view>

#include "base/json.h"

namespace quern {

// What of config.json decides shapes and arithmetic.
struct PublishedShape {
  std::string_view name;
  std::string_view architecture;
  int vocabulary;
  int hidden;
  int intermediate;
  int layers;
  int heads;
  int kv_heads;
  int head_dim;
  int positions;
  double rope_theta;
  double rope_factor;  // of Llama 3's scaling from 8,192 positions; 0: none
  double norm_eps;
  bool tied_head;
};

inline constexpr PublishedShape kPublishedShapes[] = {
    {"llama-3.1-8b", "LlamaForCausalLM", 128256, 4096, 14336, 32, 32, 8, 128, 131072, 5e5, 8, 1e-5,
     false},
    {"llama-3.2-1b", "LlamaForCausalLM", 128256, 2048, 8192, 16, 32, 8, 64, 131072, 5e5, 32, 1e-5,
     true},
    {"qwen3-0.6b", "Qwen3ForCausalLM", 151936, 1024, 3072, 28, 16, 8, 128, 40960, 1e6, 0, 1e-6,
     true},
    {"qwen3-8b", "Qwen3ForCausalLM", 151936, 4096, 12288, 36, 32, 8, 128, 40960, 1e6, 0, 1e-6,
     false},
};

// The shape as a config.json.
inline Json config_of(const PublishedShape& shape) {
  Json config = {{"architectures", {shape.architecture}},
                 {"hidden_act", "silu"},
                 {"vocab_size", shape.vocabulary},
                 {"hidden_size", shape.hidden},
                 {"intermediate_size", shape.intermediate},
                 {"num_hidden_layers", shape.layers},
                 {"num_attention_heads", shape.heads},
                 {"num_key_value_heads", shape.kv_heads},
                 {"head_dim", shape.head_dim},
                 {"max_position_embeddings", shape.positions},
                 {"rope_theta", shape.rope_theta},
                 {"rms_norm_eps", shape.norm_eps},
                 {"tie_word_embeddings", shape.tied_head}};
  if (shape.rope_factor > 0) {
    config["rope_scaling"] = {{"rope_type", "llama3"},
                              {"factor", shape.rope_factor},
                              {"low_freq_factor", 1.0},
                              {"high_freq_factor", 4.0},
                              {"original_max_position_embeddings", 8192}};
  }
  return config;
}

}  // namespace quern
