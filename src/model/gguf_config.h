// The metadata of a GGUF file under the keys that Hugging Face configs use, and the names of its
// tensors under those that Hugging Face checkpoints use.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/result.h"
#include "tensor/gguf.h"

namespace quern {

struct GgufConfig {
  Json config;                   // as config.json
  Json generation;               // as generation_config.json: the tokens that end a sequence
  bool paired_rotation = false;  // rows of q and k are stored in the order of adjacent pairs
  int heads = 0;
  int kv_heads = 0;
};

// Errors: kUnsupported for an architecture that Quern lacks (with the list of those it knows), a
// mixture of experts or a file that is one part of several; kInvalidArgument for metadata that is
// missing or of another type.
Result<GgufConfig> read_gguf_config(const GgufFile& file);

// "model.layers.3.mlp.up_proj.weight" -> "blk.3.ffn_up.weight"; empty when GGUF has no such tensor.
std::optional<std::string> gguf_name(std::string_view name);

}  // namespace quern
