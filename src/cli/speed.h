// Measures what the engine delivers: prompts read, tokens written, at stated batch and lengths.
#pragma once

#include <cstdint>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "cli/console.h"
#include "model/model.h"

namespace quern {

struct SpeedOptions {
  int64_t batch = 1;             // sequences at once
  int64_t prefill_tokens = 512;  // of each prompt
  int64_t decode_tokens = 128;   // of each sequence, after its first
  int repeat = 3;
  uint64_t seed = 1;  // of the synthetic prompts
};

// The best of the repetitions, for prefill and decode each: a shared machine only ever slows down.
struct SpeedPoint {
  int64_t batch = 0;
  int64_t prefill_tokens = 0;
  int64_t decode_tokens = 0;
  double prefill_tokens_per_second = 0;  // all prompts, until the last one's first token
  double decode_tokens_per_second = 0;   // all sequences together, while all of them decode
  double ttft_ms = 0;                    // mean over the batch, all submitted at once
  double tpot_ms = 0;                    // one decode step of the whole batch
  // Of the median repetition, to show how much the machine wavers.
  double median_decode_tokens_per_second = 0;
};

// Limits to load a model with for these measurements.
ModelLimits speed_limits(const std::vector<SpeedOptions>& points, KvDType kv_dtype);

// Runs `batch` synthetic prompts through the scheduler and the model, without a tokenizer. Errors:
// kInvalidArgument when prompt and answer exceed the model's context.
Result<SpeedPoint> measure_speed(Model& model, const SpeedOptions& options, const Clock& clock);

}  // namespace quern
