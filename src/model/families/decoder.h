// The decoder that most families share: attention and gated MLP by turns, both behind an RMSNorm.
#pragma once

#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "model/spec.h"

namespace quern {

// Whether the layers of one kind carry a bias.
enum class Bias : uint8_t { kNone, kHas };

// Sizes and switches of such a decoder. read_decoder_config() fills in what every family's config
// states under the same key; a family sets the rest.
struct DecoderConfig {
  int64_t vocabulary = 0;
  int64_t hidden = 0;
  int64_t intermediate = 0;
  int layers = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  float eps = 1e-6f;
  RopeParams rope;
  int64_t max_context = 0;
  bool tied_head = false;

  Bias qkv_bias = Bias::kNone;
  Bias o_bias = Bias::kNone;
  Bias mlp_bias = Bias::kNone;
  bool head_norms = false;       // RMSNorm of each query and key head
  std::vector<int64_t> windows;  // of each layer; 0: none. Empty: none anywhere
};

// Errors: as FamilyBuilder.
Result<DecoderConfig> read_decoder_config(const JsonObject& config);

// The window of every layer, where the config says which layers slide: by "layer_types", or else
// every layer from `first_sliding` on. Errors: as FamilyBuilder.
Result<std::vector<int64_t>> read_windows(const JsonObject& config,
                                          int layers,
                                          int64_t window,
                                          int64_t first_sliding);

// The blocks under the names that Llama's checkpoints introduced (model.layers.N.self_attn.q_proj).
ModelSpec decoder_spec(const DecoderConfig& config);

}  // namespace quern
