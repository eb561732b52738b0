#include "cli/sampling_options.h"

#include "base/json.h"

namespace quern {
namespace {

// The flag, else the model's own value, else the default that is there.
Result<Unit> choose(std::optional<float> flag,
                    const JsonObject& config,
                    const char* key,
                    float* value) {
  if (flag) {
    *value = *flag;
  } else {
    *value = static_cast<float>(QUERN_TRY(config.number(key, *value)));
  }
  return Unit{};
}

}  // namespace

void add_sampling_options(CLI::App& app, SamplingOptions* options) {
  app.add_option("--temperature", options->temperature, "0: always the most likely token");
  app.add_option("--top-k", options->top_k, "Sample from the k most likely tokens (0: all)");
  app.add_option("--top-p", options->top_p, "Sample from the smallest set with this probability");
  app.add_option("--min-p", options->min_p, "Least share of the most likely token's probability");
  app.add_option("--repetition-penalty", options->repetition_penalty, "1: none");
  app.add_option("--presence-penalty", options->presence_penalty, "0: none");
  app.add_option("--frequency-penalty", options->frequency_penalty, "0: none");
  app.add_option("--seed", options->seed, "The same seed and prompt give the same text")
      ->capture_default_str();
}

Result<SamplingParams> sampling_params(const SamplingOptions& options,
                                       const Checkpoint& checkpoint) {
  const JsonObject config(checkpoint.generation_config(), "generation_config.json");
  SamplingParams params;
  params.seed = options.seed;
  // A model whose configuration does not sample is decoded greedily, as its makers do.
  const bool samples = QUERN_TRY(config.boolean("do_sample", false));
  params.temperature = 0;
  if (samples) {
    params.temperature = 1;
    QUERN_TRY(choose(std::nullopt, config, "temperature", &params.temperature));
  }
  if (options.temperature) params.temperature = *options.temperature;
  QUERN_TRY(choose(options.top_p, config, "top_p", &params.top_p));
  QUERN_TRY(choose(options.min_p, config, "min_p", &params.min_p));
  QUERN_TRY(
      choose(options.repetition_penalty, config, "repetition_penalty", &params.repetition_penalty));
  if (options.presence_penalty) params.presence_penalty = *options.presence_penalty;
  if (options.frequency_penalty) params.frequency_penalty = *options.frequency_penalty;
  params.top_k = options.top_k
                     ? *options.top_k
                     : static_cast<int32_t>(QUERN_TRY(config.integer("top_k", 0, 0, INT32_MAX)));
  return params;
}

}  // namespace quern
