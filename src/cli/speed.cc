#include "cli/speed.h"

#include <algorithm>
#include <variant>

#include <fmt/format.h>

#include "base/random.h"
#include "engine/engine.h"

namespace quern {
namespace {

constexpr int64_t kStepRows = 512;

// A prompt may finish this many steps after the first one, and the early sequences decode
// meanwhile.
int64_t stagger(const SpeedOptions& options) {
  return options.batch * options.prefill_tokens / kStepRows + options.batch + 2;
}

int64_t tokens_per_sequence(const SpeedOptions& options) {
  return options.prefill_tokens + options.decode_tokens + stagger(options) + 1;
}

Request synthetic_request(const SpeedOptions& options, int64_t vocabulary, int64_t index) {
  Request request;
  for (int64_t i = 0; i < options.prefill_tokens; ++i) {
    const uint64_t bits =
        random_bits(options.seed, static_cast<uint64_t>(index), static_cast<uint64_t>(i));
    request.prompt.push_back(static_cast<int32_t>(bits % static_cast<uint64_t>(vocabulary)));
  }
  request.sampling.temperature = 0;
  request.max_tokens = options.decode_tokens + stagger(options) + 1;
  request.eos = EosTokens::kIgnore;
  return request;
}

// Watches one run: when each sequence had its first token, and when all have decoded enough.
struct Watch {
  int64_t batch = 0;
  int64_t decode_tokens = 0;
  int64_t started = 0;       // sequences that have their first token
  int64_t first_sum_ns = 0;  // of the times from submission to first token
  int64_t all_started_ns = 0;
  int64_t decoded = 0;  // tokens after that
  int64_t done_ns = 0;
};

Result<SpeedPoint> run_once(Model& model, const SpeedOptions& options, const Clock& clock) {
  Engine engine(model, nullptr, {.max_waiting = options.batch}, clock);
  Watch watch{.batch = options.batch, .decode_tokens = options.decode_tokens};
  std::vector<RequestId> ids;
  std::vector<bool> has_first;
  const int64_t start_ns = clock.now_ns();
  for (int64_t i = 0; i < options.batch; ++i) {
    ids.push_back(QUERN_TRY(engine.submit(synthetic_request(options, model.spec().vocabulary, i))));
  }
  has_first.resize(ids.size());
  std::string failure;
  const auto sink = [&](const Event& event) {
    if (const auto* finished = std::get_if<FinishedEvent>(&event)) {
      if (finished->reason == FinishReason::kError) failure = finished->error;
      return;
    }
    const auto& token = std::get<TokenEvent>(event);
    const auto index =
        static_cast<size_t>(std::find(ids.begin(), ids.end(), token.request) - ids.begin());
    if (watch.all_started_ns != 0) {
      ++watch.decoded;
    } else if (!has_first[index]) {
      has_first[index] = true;
      ++watch.started;
      watch.first_sum_ns += clock.now_ns() - start_ns;
    }
  };
  while (watch.decoded < watch.batch * watch.decode_tokens) {
    check_interrupt();
    if (!engine.step(sink) || !failure.empty()) break;
    // Counting begins with the step after the one that gave the last sequence its first token.
    const int64_t now = clock.now_ns();
    if (watch.all_started_ns == 0 && watch.started == watch.batch) watch.all_started_ns = now;
    watch.done_ns = now;
  }
  if (!failure.empty()) return Error{ErrorCode::kInvalidArgument, failure};
  for (const RequestId id : ids) engine.cancel(id);
  while (engine.step(sink)) {
  }
  const double prefill_seconds = static_cast<double>(watch.all_started_ns - start_ns) * 1e-9;
  const double decode_seconds = static_cast<double>(watch.done_ns - watch.all_started_ns) * 1e-9;
  const auto batch = static_cast<double>(options.batch);
  SpeedPoint point{.batch = options.batch,
                   .prefill_tokens = options.prefill_tokens,
                   .decode_tokens = options.decode_tokens};
  point.prefill_tokens_per_second =
      batch * static_cast<double>(options.prefill_tokens) / prefill_seconds;
  point.decode_tokens_per_second = static_cast<double>(watch.decoded) / decode_seconds;
  point.ttft_ms = static_cast<double>(watch.first_sum_ns) * 1e-6 / batch;
  point.tpot_ms = decode_seconds * 1e3 * batch / static_cast<double>(watch.decoded);
  return point;
}

}  // namespace

ModelLimits speed_limits(const std::vector<SpeedOptions>& points, KvDType kv_dtype) {
  ModelLimits limits{.max_batch_tokens = kStepRows, .kv_dtype = kv_dtype};
  for (const SpeedOptions& point : points) {
    const int64_t blocks = (tokens_per_sequence(point) + kKvBlockTokens - 1) / kKvBlockTokens;
    limits.kv_blocks = std::max(limits.kv_blocks, point.batch * blocks);
    limits.max_logit_rows = std::max(limits.max_logit_rows, point.batch);
    limits.max_batch_tokens = std::max(limits.max_batch_tokens, point.batch);
  }
  return limits;
}

Result<SpeedPoint> measure_speed(Model& model, const SpeedOptions& options, const Clock& clock) {
  if (tokens_per_sequence(options) > model.spec().max_context) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("prefill {} and decode {} at batch {} need {} positions; the model's "
                             "context is {}",
                             options.prefill_tokens, options.decode_tokens, options.batch,
                             tokens_per_sequence(options), model.spec().max_context)};
  }
  SpeedPoint best;
  std::vector<double> decode_rates;
  for (int i = 0; i < options.repeat; ++i) {
    const SpeedPoint point = QUERN_TRY(run_once(model, options, clock));
    decode_rates.push_back(point.decode_tokens_per_second);
    if (i == 0) best = point;
    if (point.prefill_tokens_per_second > best.prefill_tokens_per_second) {
      best.prefill_tokens_per_second = point.prefill_tokens_per_second;
      best.ttft_ms = point.ttft_ms;
    }
    if (point.decode_tokens_per_second > best.decode_tokens_per_second) {
      best.decode_tokens_per_second = point.decode_tokens_per_second;
      best.tpot_ms = point.tpot_ms;
    }
  }
  std::sort(decode_rates.begin(), decode_rates.end());
  best.median_decode_tokens_per_second = decode_rates[decode_rates.size() / 2];
  return best;
}

}  // namespace quern
