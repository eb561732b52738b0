// What /metrics shows: vLLM's core names, so that dashboards and the Kubernetes endpoint picker
// read Quern unchanged, and Quern's own of the HTTP side.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>

#include "engine/request.h"
#include "serve/engine_thread.h"
#include "serve/metrics.h"

namespace quern {

// What one finished request tells. Times in nanoseconds of one clock.
struct RequestRecord {
  FinishReason reason = FinishReason::kStop;
  Usage usage;
  Timing timing;
  int64_t arrival_ns = 0;  // of the call at the server
  int64_t max_tokens = 0;
  int64_t answers = 1;  // requests of the call
};

// Why a call was refused before it ran.
enum class Rejection : uint8_t { kQueueFull, kDraining, kExpired, kConnections };

inline constexpr int kRejections = 4;

// "queue_full", ...
std::string_view rejection_name(Rejection reason);

// The histograms and counters of one model. One thread.
class ModelMetrics {
 public:
  ModelMetrics();

  void first_token(double seconds) { time_to_first_token_.observe(seconds); }

  void next_token(double seconds) { inter_token_latency_.observe(seconds); }

  void finished(const RequestRecord& record);

  void rejected(Rejection reason) { ++rejections_[static_cast<size_t>(reason)]; }

 private:
  friend class MetricsPage;

  Histogram time_to_first_token_, inter_token_latency_, time_per_output_token_, e2e_, queue_,
      inference_, prefill_, decode_;
  Histogram prompt_tokens_, generation_tokens_, computed_tokens_, answers_, max_tokens_;
  int64_t finished_[8] = {};  // by FinishReason
  int64_t rejections_[kRejections] = {};
};

// One model's part of the page.
struct ModelPage {
  std::string_view name;
  int64_t block_tokens = 0;
  EngineSnapshot engine;
  const Histogram* rows_per_step = nullptr;
  const ModelMetrics* metrics = nullptr;
};

// The HTTP side's part.
struct HttpPage {
  int64_t connections = 0;
  int64_t calls = 0;      // being read, waiting or running
  int64_t abandoned = 0;  // calls whose client went away
  int64_t log_lines_dropped = 0;
  int64_t now_ns = 0;
  int64_t now_unix_s = 0;
  const std::map<int, int64_t>* answers = nullptr;  // by status
};

std::string metrics_page(std::span<const ModelPage> models, const HttpPage& http);

}  // namespace quern
