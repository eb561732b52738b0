// A run: sends the requests of a workload when they are due, on one thread, and gathers what came
// of them.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "load/http_connection.h"
#include "load/record.h"
#include "load/workload.h"

namespace quern {

struct LoadRunOptions {
  std::vector<double> due_seconds{};  // one for each request, from the start
  bool endless = false;               // go on behind due_seconds until the duration is over
  int64_t concurrency = 0;            // requests at once; 0: no limit
  double duration_seconds = 0;        // no request begins later; 0: no limit
  double timeout_seconds = 600;       // of one request
  uint64_t first_index = 0;           // of the workload
  std::string head{};                 // of every request, but for its length
};

struct RunProgress {
  int64_t finished = 0;
  int64_t active = 0;
  int64_t failed = 0;
  int64_t output_tokens = 0;
  double seconds = 0;
};

struct RunHooks {
  std::function<bool()> interrupted{};                    // asked several times a second
  std::function<void(const RunProgress&)> on_progress{};  // called as often; may be empty
};

enum class RunEnd : uint8_t { kComplete, kInterrupted, kUnreachable };

struct RunResult {
  std::vector<LoadRecord> records{};  // as they finished
  RunEnd end = RunEnd::kComplete;
  double seconds = 0;  // from the start until the last answer
  int64_t concurrency_max = 0;
  int64_t connections = 0;
};

// A run ends early as kUnreachable when this many connections in a row could not be opened.
inline constexpr int64_t kMaxUnreachable = 100;

// Returns when the last request has finished. Requires hooks.interrupted. Borrows for the call.
RunResult run_load(const Workload& workload,
                   const HttpTarget& target,
                   const LoadRunOptions& options,
                   const Clock& clock,
                   const RunHooks& hooks);

}  // namespace quern
