#include "load/runner.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>

#include <boost/asio/steady_timer.hpp>

#include "load/load_stream.h"

namespace quern {
namespace {

namespace asio = boost::asio;

constexpr auto kTick = std::chrono::milliseconds(50);

class Runner {
 public:
  Runner(const Workload& workload,
         const HttpTarget& target,
         const LoadRunOptions& options,
         const Clock& clock,
         const RunHooks& hooks)
      : workload_(workload),
        target_(target),
        options_(options),
        clock_(clock),
        hooks_(hooks),
        arrival_(io_),
        tick_(io_) {}

  RunResult run() {
    start_ns_ = clock_.now_ns();
    launch_due();
    if (!over()) arm_tick();
    io_.run();
    for (const auto& stream : streams_) result_.connections += stream->connects();
    report_progress();
    return std::move(result_);
  }

 private:
  int64_t now_ns() const { return clock_.now_ns() - start_ns_; }

  bool time_is_up() const {
    return options_.duration_seconds > 0 &&
           static_cast<double>(now_ns()) * 1e-9 >= options_.duration_seconds;
  }

  bool more() const {
    if (stopping_ || time_is_up()) return false;
    return options_.endless || next_ < options_.due_seconds.size();
  }

  bool over() const { return active_ == 0 && !more(); }

  int64_t due_ns() const {
    if (next_ >= options_.due_seconds.size()) return 0;
    return static_cast<int64_t>(options_.due_seconds[next_] * 1e9);
  }

  void launch_due() {
    while (more() && (options_.concurrency == 0 || active_ < options_.concurrency)) {
      const int64_t wait_ns = due_ns() - now_ns();
      if (wait_ns > 0) return arm_arrival(wait_ns);
      launch();
    }
    if (over()) {
      tick_.cancel();
      arrival_.cancel();
    }
  }

  void launch() {
    const int64_t due = due_ns() > 0 ? due_ns() : -1;
    const uint64_t index = options_.first_index + next_++;
    if (idle_.empty()) {
      streams_.push_back(std::make_unique<LoadStream>(
          io_, target_, clock_, [this](LoadStream& stream) { on_finished(stream); }));
      idle_.push_back(streams_.back().get());
    }
    LoadStream* stream = idle_.back();
    idle_.pop_back();
    result_.concurrency_max = std::max(result_.concurrency_max, ++active_);
    stream->start(workload_.request(index), options_.head, start_ns_, due);
  }

  void on_finished(LoadStream& stream) {
    --active_;
    idle_.push_back(&stream);
    LoadRecord record = stream.take_record();
    result_.seconds = std::max(result_.seconds, static_cast<double>(record.end_ns) * 1e-9);
    ++progress_.finished;
    progress_.failed += record.outcome == Outcome::kFailed ? 1 : 0;
    progress_.output_tokens += record.output_tokens();
    result_.records.push_back(std::move(record));
    unreachable_ = stream.unreachable() ? unreachable_ + 1 : 0;
    if (unreachable_ >= kMaxUnreachable) stop(RunEnd::kUnreachable);
    launch_due();
  }

  void arm_arrival(int64_t wait_ns) {
    arrival_.expires_after(std::chrono::nanoseconds(wait_ns));
    arrival_.async_wait([this](boost::system::error_code error) {
      if (!error) launch_due();
    });
  }

  void arm_tick() {
    tick_.expires_after(kTick);
    tick_.async_wait([this](boost::system::error_code error) {
      if (!error) on_tick();
    });
  }

  void on_tick() {
    if (hooks_.interrupted()) stop(RunEnd::kInterrupted);
    const int64_t oldest_ns = now_ns() - static_cast<int64_t>(options_.timeout_seconds * 1e9);
    for (const auto& stream : streams_) {
      if (stream->busy() && stream->sent_ns() < oldest_ns) {
        stream->time_out(options_.timeout_seconds);
      }
    }
    report_progress();
    if (over()) {
      arrival_.cancel();
    } else {
      arm_tick();
    }
  }

  void stop(RunEnd end) {
    if (stopping_) return;
    stopping_ = true;
    result_.end = end;
    arrival_.cancel();
    if (end != RunEnd::kInterrupted) return;  // what is on its way may still end well
    for (const auto& stream : streams_) stream->interrupt();
  }

  void report_progress() {
    if (!hooks_.on_progress) return;
    progress_.active = active_;
    progress_.seconds = static_cast<double>(now_ns()) * 1e-9;
    hooks_.on_progress(progress_);
  }

  const Workload& workload_;
  const HttpTarget& target_;
  const LoadRunOptions& options_;
  const Clock& clock_;
  const RunHooks& hooks_;
  asio::io_context io_{1};
  asio::steady_timer arrival_, tick_;
  std::vector<std::unique_ptr<LoadStream>> streams_;
  std::vector<LoadStream*> idle_;  // the last used is used first: its connection is open
  RunResult result_;
  RunProgress progress_;
  size_t next_ = 0;
  int64_t active_ = 0;
  int64_t start_ns_ = 0;
  int64_t unreachable_ = 0;  // in a row
  bool stopping_ = false;
};

}  // namespace

RunResult run_load(const Workload& workload,
                   const HttpTarget& target,
                   const LoadRunOptions& options,
                   const Clock& clock,
                   const RunHooks& hooks) {
  return Runner(workload, target, options, clock, hooks).run();
}

}  // namespace quern
