// Rotary position embeddings as config files state them: base frequency and context extension.
#pragma once

#include "base/json.h"
#include "base/result.h"
#include "model/spec.h"

namespace quern {

struct RopeConfig {
  RopeParams params;
  int64_t max_context = 0;  // positions that the extension reaches
};

// Reads "rope_parameters", or "rope_theta" and "rope_scaling" of older configs; the types default,
// linear, dynamic, llama3, yarn and longrope. `max_positions` is the config's
// max_position_embeddings. Requires an even head_dim.
// Errors: kUnsupported for another type or partial rotation, kInvalidArgument for bad values.
Result<RopeConfig> read_rope(const JsonObject& config, int head_dim, int64_t max_positions);

}  // namespace quern
