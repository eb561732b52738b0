#include "quant/evaluate.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "base/interrupt.h"
#include "quant/distribution.h"
#include "tensor/buffer.h"

namespace quern {
namespace {

// Runs one model through one window, a chunk of rows at a time.
class WindowRunner {
 public:
  WindowRunner(Model& model, int64_t context) : model_(model) {
    for (int64_t i = 0; i < context; ++i) positions_.push_back(static_cast<int32_t>(i));
    const int64_t blocks = (context + kKvBlockTokens - 1) / kKvBlockTokens;
    for (int64_t i = 0; i < blocks; ++i) block_table_.push_back(static_cast<int32_t>(i));
  }

  // Logits of rows [begin, begin + count) of the window, whose earlier rows have been run.
  void run(std::span<const int32_t> window, int64_t begin, int64_t count, FloatMatrix& logits) {
    const SequenceSpan sequence{
        .row_begin = 0, .row_count = count, .position_begin = begin, .block_table = block_table_};
    const auto at = static_cast<size_t>(begin);
    const auto size = static_cast<size_t>(count);
    model_.forward({.tokens = window.subspan(at, size),
                    .positions = std::span<const int32_t>(positions_).subspan(at, size),
                    .sequences = std::span(&sequence, 1),
                    .logit_rows = std::span<const int32_t>(positions_).first(size)},
                   logits.tensor().slice_rows(0, count));
  }

 private:
  Model& model_;
  std::vector<int32_t> positions_;
  std::vector<int32_t> block_table_;
};

// What was found at every scored position, in the order of the text.
struct Scores {
  std::vector<double> nll;
  std::vector<double> baseline_nll;
  std::vector<double> divergence;
  std::vector<uint8_t> agrees;

  Scores(size_t scored, bool compared)
      : nll(scored),
        baseline_nll(compared ? scored : 0),
        divergence(baseline_nll.size()),
        agrees(baseline_nll.size()) {}
};

Error wrong(const std::string& message) { return Error{ErrorCode::kInvalidArgument, message}; }

Result<Unit> check_model(const Model& model, const EvaluateOptions& options, int64_t chunk) {
  const ModelLimits& limits = model.limits();
  if (options.context > model.spec().max_context) {
    return wrong("context " + std::to_string(options.context) + " is beyond the model's " +
                 std::to_string(model.spec().max_context));
  }
  const ModelLimits needed = evaluation_limits(options, limits.kv_dtype);
  if (limits.kv_blocks < needed.kv_blocks || limits.max_batch_tokens < chunk ||
      limits.max_logit_rows < chunk) {
    return wrong("the model was loaded for " + std::to_string(limits.kv_blocks) +
                 " cache blocks and " + std::to_string(limits.max_logit_rows) +
                 " rows of logits; evaluation needs " + std::to_string(needed.kv_blocks) + " and " +
                 std::to_string(chunk));
  }
  return Unit{};
}

Result<Unit> check_vocabulary(const Model& model, const Model& reference) {
  const int64_t wanted = reference.spec().vocabulary;
  if (model.spec().vocabulary == wanted) return Unit{};
  return wrong("one vocabulary has " + std::to_string(wanted) + " tokens, another " +
               std::to_string(model.spec().vocabulary));
}

Result<Unit> check_tokens(std::span<const int32_t> tokens, int64_t vocabulary) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] >= 0 && tokens[i] < vocabulary) continue;
    return wrong("token " + std::to_string(tokens[i]) + " at position " + std::to_string(i) +
                 " is outside the vocabulary of " + std::to_string(vocabulary));
  }
  return Unit{};
}

// The tokens that will be scored, in whole windows.
Result<std::span<const int32_t>> whole_windows(std::span<const int32_t> tokens,
                                               const EvaluateOptions& options) {
  if (options.context < 2)
    return wrong("context " + std::to_string(options.context) + ": at least 2 are needed");
  if (options.chunk_rows < 1) return wrong("chunk_rows must be at least 1");
  if (options.max_tokens > 0 && static_cast<uint64_t>(options.max_tokens) < tokens.size())
    tokens = tokens.first(static_cast<size_t>(options.max_tokens));
  const auto context = static_cast<size_t>(options.context);
  const size_t windows = tokens.size() / context;
  if (windows == 0) {
    return wrong("the text has " + std::to_string(tokens.size()) +
                 " tokens; one window of context " + std::to_string(options.context) +
                 " needs as many");
  }
  return tokens.first(windows * context);
}

double mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

// Standard error of the mean over windows, which are closer to independent than tokens are.
double standard_error(const std::vector<double>& values, int64_t windows) {
  if (windows < 2) return 0;
  const size_t size = values.size() / static_cast<size_t>(windows);
  const double centre = mean(values);
  double squares = 0;
  for (size_t begin = 0; begin < values.size(); begin += size) {
    double sum = 0;
    for (size_t i = 0; i < size; ++i) sum += values[begin + i];
    const double off = sum / static_cast<double>(size) - centre;
    squares += off * off;
  }
  const auto n = static_cast<double>(windows);
  return std::sqrt(squares / (n - 1) / n);
}

DivergenceReport summarise(const Scores& scores, int64_t windows) {
  DivergenceReport report;
  report.baseline_perplexity = std::exp(mean(scores.baseline_nll));
  report.mean = mean(scores.divergence);
  report.mean_standard_error = standard_error(scores.divergence, windows);
  std::vector<double> sorted = scores.divergence;
  std::sort(sorted.begin(), sorted.end());
  const size_t n = sorted.size();
  report.median = (sorted[(n - 1) / 2] + sorted[n / 2]) / 2;
  const auto rank = static_cast<size_t>(std::ceil(0.99 * static_cast<double>(n)));
  report.p99 = sorted[std::max<size_t>(rank, 1) - 1];
  report.max = sorted.back();
  int64_t agreed = 0;
  for (const uint8_t agrees : scores.agrees) agreed += agrees;
  report.top1_agreement = static_cast<double>(agreed) / static_cast<double>(n);
  return report;
}

// Scores rows [begin, begin + count) of a window whose logits lie in the two matrices.
struct Chunk {
  std::span<const int32_t> window;
  int64_t begin = 0;
  int64_t count = 0;
  size_t first_score = 0;
  const FloatMatrix* logits = nullptr;
  const FloatMatrix* baseline = nullptr;  // nullptr: none
};

void score_chunk(ThreadPool& pool, const Chunk& chunk, Scores& scores) {
  const int64_t vocabulary = chunk.logits->columns();
  pool.for_each_chunk(chunk.count, 1, [&](int64_t first, int64_t end, int) {
    for (int64_t row = first; row < end; ++row) {
      const int32_t target = chunk.window[static_cast<size_t>(chunk.begin + row + 1)];
      const size_t at = chunk.first_score + static_cast<size_t>(row);
      if (chunk.baseline == nullptr) {
        scores.nll[at] = score_logits(chunk.logits->row(row), vocabulary, target).nll;
        continue;
      }
      const TokenComparison comparison =
          compare_logits(chunk.baseline->row(row), chunk.logits->row(row), vocabulary, target);
      scores.nll[at] = comparison.model.nll;
      scores.baseline_nll[at] = comparison.baseline.nll;
      scores.divergence[at] = comparison.divergence;
      scores.agrees[at] = comparison.model.best == comparison.baseline.best ? 1 : 0;
    }
  });
}

}  // namespace

ModelLimits evaluation_limits(const EvaluateOptions& options, KvDType kv_dtype) {
  const int64_t chunk = std::min(options.chunk_rows, options.context);
  return {.max_batch_tokens = chunk,
          .max_logit_rows = chunk,
          .kv_blocks = (options.context + kKvBlockTokens - 1) / kKvBlockTokens,
          .kv_dtype = kv_dtype};
}

Result<std::vector<EvalReport>> evaluate(std::span<Model* const> models,
                                         Model* baseline,
                                         ThreadPool& pool,
                                         std::span<const int32_t> tokens,
                                         const EvaluateOptions& options,
                                         EvaluateProgress* progress) {
  QUERN_CHECK(!models.empty());
  tokens = QUERN_TRY(whole_windows(tokens, options));
  const int64_t chunk = std::min(options.chunk_rows, options.context);
  const Model& reference = baseline == nullptr ? *models[0] : *baseline;
  QUERN_TRY(check_model(reference, options, chunk));
  for (const Model* model : models) {
    QUERN_TRY(check_model(*model, options, chunk));
    QUERN_TRY(check_vocabulary(*model, reference));
  }
  QUERN_TRY(check_tokens(tokens, reference.spec().vocabulary));
  const SteadyClock clock;
  const double start = clock.now_seconds();
  const auto context = static_cast<size_t>(options.context);
  EvalReport frame{.context = options.context,
                   .windows = static_cast<int64_t>(tokens.size() / context)};
  frame.tokens = frame.windows * (options.context - 1);
  std::vector<Scores> scores;
  std::vector<WindowRunner> runners;
  for (Model* model : models) {
    scores.emplace_back(static_cast<size_t>(frame.tokens), baseline != nullptr);
    runners.emplace_back(*model, options.context);
  }
  FloatMatrix logits(chunk, reference.spec().vocabulary);
  std::optional<WindowRunner> baseline_runner;
  FloatMatrix baseline_logits;
  if (baseline != nullptr) {
    baseline_runner.emplace(*baseline, options.context);
    baseline_logits = FloatMatrix(chunk, reference.spec().vocabulary);
  }
  for (int64_t w = 0; w < frame.windows; ++w) {
    Chunk part{.window = tokens.subspan(static_cast<size_t>(w) * context, context),
               .logits = &logits,
               .baseline = baseline == nullptr ? nullptr : &baseline_logits};
    for (; part.begin < options.context - 1; part.begin += part.count) {
      part.count = std::min(chunk, options.context - 1 - part.begin);
      part.first_score = static_cast<size_t>(w * (options.context - 1) + part.begin);
      if (baseline_runner)
        baseline_runner->run(part.window, part.begin, part.count, baseline_logits);
      for (size_t i = 0; i < models.size(); ++i) {
        if (interrupted()) return Error{ErrorCode::kExhausted, "interrupted during evaluation"};
        runners[i].run(part.window, part.begin, part.count, logits);
        score_chunk(pool, part, scores[i]);
      }
    }
    if (progress != nullptr) (*progress)(w + 1, frame.windows);
  }
  frame.seconds = clock.now_seconds() - start;
  std::vector<EvalReport> reports;
  for (const Scores& each : scores) {
    EvalReport& report = reports.emplace_back(frame);
    report.perplexity = std::exp(mean(each.nll));
    if (baseline != nullptr) report.divergence = summarise(each, report.windows);
  }
  return reports;
}

Json EvalReport::to_json() const {
  Json json = {{"context", context},
               {"windows", windows},
               {"tokens", tokens},
               {"perplexity", perplexity},
               {"seconds", seconds}};
  if (divergence) {
    json["baseline_perplexity"] = divergence->baseline_perplexity;
    json["kl_divergence_nats"] = divergence->mean;
    json["kl_divergence_standard_error_nats"] = divergence->mean_standard_error;
    json["kl_divergence_median_nats"] = divergence->median;
    json["kl_divergence_p99_nats"] = divergence->p99;
    json["kl_divergence_max_nats"] = divergence->max;
    json["top1_agreement"] = divergence->top1_agreement;
  }
  return json;
}

}  // namespace quern
