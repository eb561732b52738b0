// The flags of commands that sample.
#pragma once

#include <CLI/CLI.hpp>

#include "engine/request.h"
#include "model/checkpoint.h"

namespace quern {

// Unset flags take the model's generation_config.json, else the defaults of `generate`: greedy.
struct SamplingOptions {
  std::optional<float> temperature, top_p, min_p, repetition_penalty, presence_penalty,
      frequency_penalty;
  std::optional<int32_t> top_k;
  uint64_t seed = 0;
};

void add_sampling_options(CLI::App& app, SamplingOptions* options);

// Errors: kInvalidArgument when generation_config.json has a value of another type.
Result<SamplingParams> sampling_params(const SamplingOptions& options,
                                       const Checkpoint& checkpoint);

}  // namespace quern
