// An engine on a thread of its own: calls go in through a bounded inbox, events come out in
// batches.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "engine/engine.h"
#include "serve/metrics.h"

namespace quern {

// Lets engines that share the cores take turns, a step each, in order of arrival: a step uses every
// core, so that two at once would only take each other's.
class EngineTurns {
 public:
  void begin();
  void end();

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t next_ticket_ = 0;
  uint64_t serving_ = 0;
};

// Something that happened to a call.
struct EngineDelivery {
  uint64_t call = 0;
  size_t index = 0;   // of the request within the call
  int64_t at_ns = 0;  // end of the step
  // An error refuses the whole call: nothing follows it.
  std::variant<Event, Error> what;
};

// What any thread may know of the engine, as of its last step. Requests that it took since count as
// running where there was room for them, else as waiting.
struct EngineSnapshot {
  EngineStats stats;
  int64_t inbox = 0;        // requests handed over that the engine has not seen
  int64_t outstanding = 0;  // requests handed over that have not ended
  int64_t progress_ns = 0;  // when a step ended last, or work came to an idle engine
  bool failed = false;      // an exception ended the thread
};

struct EngineThreadOptions {
  int64_t max_inbox = 256;    // requests
  int64_t max_sequences = 1;  // that the engine runs at once
};

// Never waits for the receiver of its events, and nobody waits for a step but the destructor.
class EngineThread {
 public:
  // Borrows engine, clock and turns; the engine belongs to the thread until destruction. `wake` is
  // called on the thread when take() has something again. `turns` may be nullptr.
  EngineThread(Engine& engine,
               const Clock& clock,
               EngineTurns* turns,
               const EngineThreadOptions& options,
               std::function<void()> wake);
  EngineThread(const EngineThread&) = delete;
  EngineThread& operator=(const EngineThread&) = delete;
  // Ends after the step that runs; what has not ended is dropped without an event.
  ~EngineThread();

  // Hands requests of a call over, whose events then carry `call` and their index, from `first` on.
  // False when the inbox is full or the thread has failed. Any thread. Requires a call of its own,
  // or more requests of a call some of whose have not ended.
  bool submit(uint64_t call, std::vector<Request> requests, size_t first = 0);

  // Ends every request of the call with FinishReason::kCancelled at the start of the next step. A
  // call that is unknown or has ended is ignored. Any thread.
  void cancel(uint64_t call);

  // Appends what happened since the last time. Any thread.
  void take(std::vector<EngineDelivery>& out);

  // Any thread; waits for nothing.
  EngineSnapshot snapshot() const;

  // Rows of each step.
  const Histogram& rows_per_step() const { return rows_per_step_; }

 private:
  struct Submission {
    uint64_t call = 0;
    std::vector<Request> requests;  // none: cancel the call
    size_t first = 0;               // index of the first of them within the call
  };

  struct Owner {
    uint64_t call = 0;
    size_t index = 0;
  };

  void run();
  // Waits for work when the engine has none; false when it is to end.
  bool take_inbox();
  void admit(Submission& submission);
  void cancel_now(uint64_t call);
  // Ends what was taken of a call, some of whose requests the engine refused.
  void refuse(uint64_t call, Error error);
  void step();
  void on_event(const Event& event);
  void fail_all(const char* what);
  void publish_stats();
  void publish();

  Engine& engine_;
  const Clock& clock_;
  EngineTurns* turns_;
  EngineThreadOptions options_;
  std::function<void()> wake_;
  Histogram rows_per_step_;

  std::mutex inbox_mutex_;
  std::condition_variable inbox_changed_;
  std::vector<Submission> inbox_;
  bool stopping_ = false;

  std::mutex outbox_mutex_;
  std::vector<EngineDelivery> outbox_;

  // Of the thread alone:
  std::vector<Submission> arrived_;
  std::vector<EngineDelivery> happened_;
  std::unordered_map<RequestId, Owner> owners_;
  std::unordered_map<uint64_t, std::vector<RequestId>> calls_;
  int64_t last_rows_ = 0;

  // Single numbers, so that a reader needs no lock; together they may be of two steps.
  using StatNumbers = std::array<int64_t, sizeof(EngineStats) / sizeof(int64_t)>;
  std::array<std::atomic<int64_t>, std::tuple_size_v<StatNumbers>> stats_{};
  std::atomic<int64_t> inbox_requests_{0};
  std::atomic<int64_t> starting_{0};  // taken since the last step
  std::atomic<int64_t> outstanding_{0};
  std::atomic<int64_t> progress_ns_{0};
  std::atomic<bool> failed_{false};

  std::thread thread_;
};

}  // namespace quern
