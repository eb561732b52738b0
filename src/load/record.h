// What one request of a run came to.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "load/stream_chunk.h"
#include "load/workload.h"

namespace quern {

enum class Outcome : uint8_t {
  kOk,            // answered to its end
  kFailed,        // no answer, half of one, or a wrong one
  kRefused,       // 429, 503 or 529: the server had no room
  kDisconnected,  // this client closed the connection on purpose
  kRebuffed,      // a hostile body got the 4xx that it deserves
  kInterrupted    // the run was stopped
};

const char* outcome_name(Outcome outcome);

// Times are from the start of the run; -1 where there is none.
struct LoadRecord {
  uint64_t index = 0;
  Behaviour behaviour = Behaviour::kGood;
  Outcome outcome = Outcome::kFailed;
  int status = 0;                           // of HTTP; 0 without an answer
  int64_t due_ns = -1;                      // when it was to be sent, in an open loop
  int64_t sent_ns = 0;                      // when it began, the connection included
  int64_t first_ns = -1;                    // first chunk with output
  int64_t last_ns = -1;                     // last chunk of the answer
  int64_t end_ns = 0;                       // when nothing more was to come
  int64_t chunks = 0;                       // with output
  std::vector<float> gaps_ms{};             // between chunks with output
  int64_t max_tokens = 0;                   // as asked
  std::optional<StreamUsage> usage{};       // the last one
  std::optional<int64_t> counted_tokens{};  // by the last chunk of the answer, if it counts
  std::string finish_reason{};
  std::string error{};

  // Usage where the server told it, else chunks.
  int64_t output_tokens() const { return usage ? usage->completion_tokens : chunks; }

  double ttft_ms() const { return static_cast<double>(first_ns - sent_ns) * 1e-6; }
  double e2e_ms() const { return static_cast<double>(last_ns - sent_ns) * 1e-6; }

  // Of the tokens after the first; 0 for a single one.
  double tpot_ms() const {
    const int64_t after_first = output_tokens() - 1;
    return after_first > 0 ? (e2e_ms() - ttft_ms()) / static_cast<double>(after_first) : 0;
  }
};

}  // namespace quern
