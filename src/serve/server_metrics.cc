#include "serve/server_metrics.h"

#include <algorithm>
#include <iterator>

#include <fmt/format.h>

namespace quern {
namespace {

// The bounds are vLLM's, so that its dashboards and alerts keep their meaning.
constexpr double kFirstTokenBounds[] = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                                        1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
constexpr double kTokenBounds[] = {.01, .025, .05, .075, .1,  .15, .2, .3, .4, .5,
                                   .75, 1,    2.5, 5,    7.5, 10,  20, 40, 80};
constexpr double kLatencyBounds[] = {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                     30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
constexpr double kCountBounds[] = {1,    2,    5,    10,    20,    50,    100,    200,   500,
                                   1000, 2000, 5000, 10000, 20000, 50000, 100000, 200000};
constexpr double kAnswerBounds[] = {1, 2, 5, 10, 20};

double seconds(int64_t from_ns, int64_t to_ns) {
  return static_cast<double>(std::max<int64_t>(to_ns - from_ns, 0)) * 1e-9;
}

double number(int64_t value) { return static_cast<double>(value); }

// vLLM's word for an ending.
std::string_view ending_name(FinishReason reason) {
  return reason == FinishReason::kCancelled ? "abort" : finish_reason_name(reason);
}

}  // namespace

std::string_view rejection_name(Rejection reason) {
  switch (reason) {
    case Rejection::kQueueFull:
      return "queue_full";
    case Rejection::kDraining:
      return "draining";
    case Rejection::kExpired:
      return "expired";
    case Rejection::kConnections:
      return "connections";
  }
  return "?";
}

ModelMetrics::ModelMetrics()
    : time_to_first_token_(kFirstTokenBounds),
      inter_token_latency_(kTokenBounds),
      time_per_output_token_(kTokenBounds),
      e2e_(kLatencyBounds),
      queue_(kLatencyBounds),
      inference_(kLatencyBounds),
      prefill_(kLatencyBounds),
      decode_(kLatencyBounds),
      prompt_tokens_(kCountBounds),
      generation_tokens_(kCountBounds),
      computed_tokens_(kCountBounds),
      answers_(kAnswerBounds),
      max_tokens_(kCountBounds) {}

void ModelMetrics::finished(const RequestRecord& record) {
  const Timing& t = record.timing;
  const Usage& usage = record.usage;
  ++finished_[static_cast<size_t>(record.reason)];
  e2e_.observe(seconds(record.arrival_ns, t.finished_ns));
  answers_.observe(number(record.answers));
  max_tokens_.observe(number(record.max_tokens));
  if (t.scheduled_ns == 0) return;  // it never ran
  queue_.observe(seconds(t.submitted_ns, t.scheduled_ns));
  inference_.observe(seconds(t.scheduled_ns, t.finished_ns));
  prompt_tokens_.observe(number(usage.prompt_tokens));
  generation_tokens_.observe(number(usage.completion_tokens));
  computed_tokens_.observe(number(usage.prompt_tokens - usage.cached_tokens));
  if (t.first_token_ns == 0) return;
  prefill_.observe(seconds(t.scheduled_ns, t.first_token_ns));
  const double decode = seconds(t.first_token_ns, t.finished_ns);
  decode_.observe(decode);
  if (usage.completion_tokens > 1) {
    time_per_output_token_.observe(decode / number(usage.completion_tokens - 1));
  }
}

class MetricsPage {
 public:
  explicit MetricsPage(std::span<const ModelPage> models) : models_(models) {}

  std::string write(const HttpPage& http) {
    write_gauges(http);
    write_counters();
    write_endings();
    write_histograms();
    write_http(http);
    return text_.text();
  }

 private:
  static MetricLabels labels(const ModelPage& model) {
    return {{"model_name", model.name}, {"engine", "0"}};
  }

  static MetricLabels labels(const ModelPage& model,
                             std::string_view name,
                             std::string_view value) {
    MetricLabels all = labels(model);
    all.emplace_back(name, value);
    return all;
  }

  // One sample for each model.
  template <typename Value>
  void each(std::string_view name, std::string_view type, std::string_view help, Value value) {
    text_.family(name, type, help);
    for (const ModelPage& model : models_) {
      text_.sample(name, labels(model), static_cast<double>(value(model)));
    }
  }

  void write_gauges(const HttpPage& http) {
    const auto waiting = [](const ModelPage& m) { return m.engine.stats.waiting + m.engine.inbox; };
    each("vllm:num_requests_running", "gauge", "Requests being computed.",
         [](const ModelPage& m) { return m.engine.stats.running; });
    each("vllm:num_requests_waiting", "gauge", "Requests waiting to be computed.", waiting);
    text_.family("vllm:num_requests_waiting_by_reason", "gauge", "Waiting requests by reason.");
    for (const ModelPage& m : models_) {
      text_.sample("vllm:num_requests_waiting_by_reason", labels(m, "reason", "capacity"),
                   number(waiting(m)));
    }
    each("vllm:kv_cache_usage_perc", "gauge", "Share of the cache blocks in use, 0 to 1.",
         [](const ModelPage& m) {
           const EngineStats& s = m.engine.stats;
           return s.total_blocks == 0 ? 0 : 1 - number(s.free_blocks) / number(s.total_blocks);
         });
    text_.family("vllm:cache_config_info", "gauge", "The key-value cache.");
    for (const ModelPage& m : models_) {
      const std::string tokens = fmt::format("{}", m.block_tokens);
      const std::string blocks = fmt::format("{}", m.engine.stats.total_blocks);
      MetricLabels all = labels(m, "block_size", tokens);
      all.emplace_back("num_gpu_blocks", blocks);
      text_.sample("vllm:cache_config_info", all, 1);
    }
    text_.family("vllm:lora_requests_info", "gauge", "Adapters; the value is the time.");
    for (const ModelPage& m : models_) {
      MetricLabels all = labels(m, "max_lora", "0");
      all.emplace_back("running_lora_adapters", "");
      all.emplace_back("waiting_lora_adapters", "");
      text_.sample("vllm:lora_requests_info", all, number(http.now_unix_s));
    }
  }

  void write_counters() {
    each("vllm:prompt_tokens_total", "counter", "Prompt tokens of requests that began to run.",
         [](const ModelPage& m) { return m.engine.stats.prompt_tokens; });
    each("vllm:generation_tokens_total", "counter", "Tokens sampled.",
         [](const ModelPage& m) { return m.engine.stats.completion_tokens; });
    each("vllm:num_preemptions_total", "counter", "Requests that lost their blocks for a while.",
         [](const ModelPage& m) { return m.engine.stats.preemptions; });
    each("vllm:prompt_tokens_cached_total", "counter",
         "Prompt tokens that came from the prefix cache.",
         [](const ModelPage& m) { return m.engine.stats.prefix_hits; });
    each("vllm:prefix_cache_queries_total", "counter",
         "Prompt tokens looked up, once for each request.",
         [](const ModelPage& m) { return m.engine.stats.prefix_queries; });
    each("vllm:prefix_cache_hits_total", "counter", "Those found in the prefix cache.",
         [](const ModelPage& m) { return m.engine.stats.prefix_hits; });
    const char* source = "vllm:prompt_tokens_by_source_total";
    text_.family(source, "counter", "Prompt tokens by where they came from.");
    for (const ModelPage& m : models_) {
      const EngineStats& s = m.engine.stats;
      text_.sample(source, labels(m, "source", "local_compute"),
                   number(s.prefix_queries - s.prefix_hits));
      text_.sample(source, labels(m, "source", "local_cache_hit"), number(s.prefix_hits));
      text_.sample(source, labels(m, "source", "external_kv_transfer"), 0);
    }
    each("vllm:spec_decode_num_drafts_total", "counter", "Steps of a sequence with guesses.",
         [](const ModelPage& m) { return m.engine.stats.draft_steps; });
    each("vllm:spec_decode_num_draft_tokens_total", "counter", "Guesses computed.",
         [](const ModelPage& m) { return m.engine.stats.draft_tokens; });
    each("vllm:spec_decode_num_accepted_tokens_total", "counter", "Guesses that were right.",
         [](const ModelPage& m) { return m.engine.stats.accepted_tokens; });
  }

  void write_endings() {
    const char* success = "vllm:request_success_total";
    text_.family(success, "counter", "Requests that ended, by how.");
    for (const ModelPage& m : models_) {
      for (const FinishReason reason : {FinishReason::kStop, FinishReason::kLength,
                                        FinishReason::kCancelled, FinishReason::kError}) {
        text_.sample(success, labels(m, "finished_reason", ending_name(reason)),
                     number(m.metrics->finished_[static_cast<size_t>(reason)]));
      }
    }
    const char* rejections = "vllm:admission_rejections_total";
    text_.family(rejections, "counter", "Calls refused before they ran, by reason.");
    for (const ModelPage& m : models_) {
      for (int i = 0; i < kRejections; ++i) {
        text_.sample(rejections, labels(m, "reason", rejection_name(static_cast<Rejection>(i))),
                     number(m.metrics->rejections_[i]));
      }
    }
  }

  void histogram(std::string_view name,
                 std::string_view help,
                 const Histogram ModelMetrics::*member) {
    text_.family(name, "histogram", help);
    for (const ModelPage& m : models_) text_.histogram(name, labels(m), m.metrics->*member);
  }

  void write_histograms() {
    using M = ModelMetrics;
    histogram("vllm:time_to_first_token_seconds", "From arrival to the first token.",
              &M::time_to_first_token_);
    histogram("vllm:inter_token_latency_seconds", "Between tokens.", &M::inter_token_latency_);
    histogram("vllm:request_time_per_output_token_seconds",
              "Mean time between the tokens of a request.", &M::time_per_output_token_);
    histogram("vllm:e2e_request_latency_seconds", "From arrival to the end.", &M::e2e_);
    histogram("vllm:request_queue_time_seconds", "Waiting for the first step.", &M::queue_);
    histogram("vllm:request_inference_time_seconds", "From the first step to the end.",
              &M::inference_);
    histogram("vllm:request_prefill_time_seconds", "From the first step to the first token.",
              &M::prefill_);
    histogram("vllm:request_decode_time_seconds", "From the first token to the last.", &M::decode_);
    histogram("vllm:request_prompt_tokens", "Prompt tokens of a request.", &M::prompt_tokens_);
    histogram("vllm:request_generation_tokens", "Tokens sampled for a request.",
              &M::generation_tokens_);
    histogram("vllm:request_max_num_generation_tokens", "The most a request could have become.",
              &M::max_tokens_);
    histogram("vllm:request_prefill_kv_computed_tokens",
              "Prompt tokens of a request that were computed.", &M::computed_tokens_);
    histogram("vllm:request_params_n", "Answers asked for.", &M::answers_);
    histogram("vllm:request_params_max_tokens", "Limit asked for.", &M::max_tokens_);
    text_.family("vllm:iteration_tokens_total", "histogram", "Tokens computed in a step.");
    for (const ModelPage& m : models_) {
      text_.histogram("vllm:iteration_tokens_total", labels(m), *m.rows_per_step);
    }
  }

  void write_http(const HttpPage& http) {
    each("quern:engine_steps_total", "counter", "Steps of the engine.",
         [](const ModelPage& m) { return m.engine.stats.steps; });
    each("quern:engine_forward_seconds_total", "counter", "Time spent in the model.",
         [](const ModelPage& m) { return number(m.engine.stats.forward_ns) * 1e-9; });
    each("quern:engine_draft_seconds_total", "counter", "Time spent in the draft model.",
         [](const ModelPage& m) { return number(m.engine.stats.draft_ns) * 1e-9; });
    each("quern:engine_recomputed_tokens_total", "counter", "Tokens computed again.",
         [](const ModelPage& m) { return m.engine.stats.recomputed_tokens; });
    each("quern:engine_step_age_seconds", "gauge",
         "Since a step ended while there is work; 0 without work.", [&](const ModelPage& m) {
           return m.engine.outstanding == 0 ? 0 : seconds(m.engine.progress_ns, http.now_ns);
         });
    const auto one = [&](const char* name, const char* type, const char* help, int64_t value) {
      text_.family(name, type, help);
      text_.sample(name, {}, number(value));
    };
    one("quern:http_connections", "gauge", "Open connections.", http.connections);
    one("quern:http_calls", "gauge", "Calls that are not yet answered.", http.calls);
    one("quern:http_abandoned_total", "counter", "Calls whose client went away.", http.abandoned);
    one("quern:log_lines_dropped_total", "counter", "Log lines lost.", http.log_lines_dropped);
    text_.family("quern:http_answers_total", "counter", "Answers by status.");
    for (const auto& [status, count] : *http.answers) {
      const std::string code = fmt::format("{}", status);
      text_.sample("quern:http_answers_total", {{"code", code}}, number(count));
    }
  }

  std::span<const ModelPage> models_;
  MetricsText text_;
};

std::string metrics_page(std::span<const ModelPage> models, const HttpPage& http) {
  return MetricsPage(models).write(http);
}

}  // namespace quern
