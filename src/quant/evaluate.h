// How good a model is: perplexity on a text and, against a baseline, how far its predictions moved.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/function_ref.h"
#include "base/json.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "model/model.h"

namespace quern {

struct EvaluateOptions {
  int64_t context = 1024;    // tokens of one window; windows do not overlap, no BOS is put in front
  int64_t max_tokens = 0;    // tokens of the text to use; 0: all
  int64_t chunk_rows = 256;  // rows of logits held at a time for each model
};

// Limits to load a model with for evaluation: one window in the cache, chunk_rows rows at a time.
ModelLimits evaluation_limits(const EvaluateOptions& options, KvDType kv_dtype);

// Divergences are KL(baseline || model) of the distribution of the next token, in nats.
struct DivergenceReport {
  double baseline_perplexity = 0;
  double mean = 0;
  double median = 0;
  double p99 = 0;
  double max = 0;
  double mean_standard_error = 0;  // from the means of the windows; 0 with one window
  double top1_agreement = 0;       // share of positions with the same most likely token
};

struct EvalReport {
  int64_t context = 0;
  int64_t windows = 0;
  int64_t tokens = 0;  // scored: context - 1 in each window
  double perplexity = 0;
  double seconds = 0;
  std::optional<DivergenceReport> divergence = std::nullopt;

  Json to_json() const;  // keys as in the command line's table
};

using EvaluateProgress = FunctionRef<void(int64_t windows_done, int64_t windows)>;

// Scores `tokens` in whole windows, which all of `models` and the baseline go through in one pass;
// what is left over behind the last whole window is not used. Returns a report for each model, in
// their order. `baseline` may be nullptr; every model needs limits() of at least
// evaluation_limits(). `progress` may be nullptr. Deterministic for any number of threads.
//
// Errors: kInvalidArgument when the text is shorter than one window, the context is below 2 or
// beyond a model's, a token is outside the vocabulary, the vocabularies differ, or limits are too
// small; kExhausted when interrupted.
Result<std::vector<EvalReport>> evaluate(std::span<Model* const> models,
                                         Model* baseline,
                                         ThreadPool& pool,
                                         std::span<const int32_t> tokens,
                                         const EvaluateOptions& options,
                                         EvaluateProgress* progress);

}  // namespace quern
