#include "serve/engine_thread.h"

#include <algorithm>
#include <bit>
#include <exception>
#include <utility>

#include "base/check.h"
#include "base/thread_pool.h"

namespace quern {
namespace {

constexpr double kRowBounds[] = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};

}  // namespace

void EngineTurns::begin() {
  std::unique_lock lock(mutex_);
  const uint64_t ticket = next_ticket_++;
  changed_.wait(lock, [&] { return serving_ == ticket; });
}

void EngineTurns::end() {
  {
    const std::lock_guard lock(mutex_);
    ++serving_;
  }
  changed_.notify_all();
}

EngineThread::EngineThread(Engine& engine,
                           const Clock& clock,
                           EngineTurns* turns,
                           const EngineThreadOptions& options,
                           std::function<void()> wake)
    : engine_(engine),
      clock_(clock),
      turns_(turns),
      options_(options),
      wake_(std::move(wake)),
      rows_per_step_(kRowBounds) {
  publish_stats();
  thread_ = std::thread([this] { run(); });
}

EngineThread::~EngineThread() {
  {
    const std::lock_guard lock(inbox_mutex_);
    stopping_ = true;
  }
  inbox_changed_.notify_one();
  thread_.join();
}

bool EngineThread::submit(uint64_t call, std::vector<Request> requests, size_t first) {
  QUERN_CHECK(!requests.empty());
  const auto count = static_cast<int64_t>(requests.size());
  {
    const std::lock_guard lock(inbox_mutex_);
    if (failed_ || inbox_requests_ + count > options_.max_inbox) return false;
    if (outstanding_ == 0) progress_ns_ = clock_.now_ns();
    outstanding_ += count;
    inbox_requests_ += count;
    inbox_.push_back({call, std::move(requests), first});
  }
  inbox_changed_.notify_one();
  return true;
}

void EngineThread::cancel(uint64_t call) {
  {
    const std::lock_guard lock(inbox_mutex_);
    inbox_.push_back({.call = call, .requests = {}});
  }
  inbox_changed_.notify_one();
}

void EngineThread::take(std::vector<EngineDelivery>& out) {
  const std::lock_guard lock(outbox_mutex_);
  if (out.empty()) return out.swap(outbox_);
  std::move(outbox_.begin(), outbox_.end(), std::back_inserter(out));
  outbox_.clear();
}

EngineSnapshot EngineThread::snapshot() const {
  StatNumbers numbers;
  for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = stats_[i];
  auto stats = std::bit_cast<EngineStats>(numbers);
  const int64_t starting = starting_;
  const int64_t room = stats.waiting > 0 ? 0 : options_.max_sequences - stats.running;
  const int64_t begun = std::clamp<int64_t>(room, 0, starting);
  stats.running += begun;
  stats.waiting += starting - begun;
  return {.stats = stats,
          .inbox = inbox_requests_,
          .outstanding = outstanding_,
          .progress_ns = progress_ns_,
          .failed = failed_};
}

void EngineThread::run() {
  const FlushDenormals flush;
  try {
    while (take_inbox()) step();
  } catch (const std::exception& error) {
    fail_all(error.what());
  } catch (...) {
    fail_all("the engine failed");
  }
}

bool EngineThread::take_inbox() {
  {
    std::unique_lock lock(inbox_mutex_);
    inbox_changed_.wait(lock, [&] { return stopping_ || !inbox_.empty() || !engine_.idle(); });
    if (stopping_) return false;
    arrived_.swap(inbox_);
  }
  for (Submission& submission : arrived_) {
    if (submission.requests.empty()) {
      cancel_now(submission.call);
    } else {
      admit(submission);
    }
  }
  arrived_.clear();
  return true;
}

void EngineThread::admit(Submission& submission) {
  const auto count = static_cast<int64_t>(submission.requests.size());
  starting_ += count;
  inbox_requests_ -= count;
  for (int64_t i = 0; i < count; ++i) {
    const auto index = static_cast<size_t>(i);
    Result<RequestId> id = engine_.submit(std::move(submission.requests[index]));
    if (!id) {
      outstanding_ -= count - i;
      return refuse(submission.call, std::move(id).error());
    }
    owners_[*id] = {submission.call, submission.first + index};
    calls_[submission.call].push_back(*id);
  }
}

void EngineThread::refuse(uint64_t call, Error error) {
  for (const RequestId id : calls_[call]) {
    engine_.cancel(id);
    owners_.erase(id);
    outstanding_ -= 1;
  }
  calls_.erase(call);
  happened_.push_back({call, 0, clock_.now_ns(), std::move(error)});
}

void EngineThread::cancel_now(uint64_t call) {
  const auto found = calls_.find(call);
  if (found == calls_.end()) return;
  for (const RequestId id : found->second) engine_.cancel(id);
}

void EngineThread::step() {
  if (turns_ != nullptr) turns_->begin();
  try {
    engine_.step([this](const Event& event) { on_event(event); });
  } catch (...) {
    if (turns_ != nullptr) turns_->end();
    throw;
  }
  if (turns_ != nullptr) turns_->end();
  publish();
}

void EngineThread::on_event(const Event& event) {
  const RequestId id = std::visit([](const auto& e) { return e.request; }, event);
  const auto owner = owners_.find(id);
  if (owner == owners_.end()) return;  // of a call that was refused
  const Owner to = owner->second;
  happened_.push_back({to.call, to.index, 0, event});
  if (!std::holds_alternative<FinishedEvent>(event)) return;
  owners_.erase(owner);
  outstanding_ -= 1;
  std::vector<RequestId>& ids = calls_[to.call];
  std::erase(ids, id);
  if (ids.empty()) calls_.erase(to.call);
}

void EngineThread::fail_all(const char* what) {
  const auto fail = [&](uint64_t call, size_t index) {
    FinishedEvent event{.reason = FinishReason::kError, .error = what};
    happened_.push_back({call, index, 0, Event(std::move(event))});
  };
  for (const auto& [id, owner] : owners_) fail(owner.call, owner.index);
  std::vector<Submission> unseen;
  {
    const std::lock_guard lock(inbox_mutex_);
    failed_ = true;
    unseen.swap(inbox_);
    inbox_requests_ = 0;
    outstanding_ = 0;
  }
  for (const auto* submissions : {&arrived_, &unseen}) {
    for (const Submission& submission : *submissions) {
      for (size_t i = 0; i < submission.requests.size(); ++i) fail(submission.call, i);
    }
  }
  owners_.clear();
  calls_.clear();
  publish();
}

void EngineThread::publish_stats() {
  const auto numbers = std::bit_cast<StatNumbers>(engine_.stats());
  for (size_t i = 0; i < numbers.size(); ++i) {
    stats_[i].store(numbers[i], std::memory_order_relaxed);
  }
}

void EngineThread::publish() {
  publish_stats();
  starting_ = 0;
  const int64_t rows = engine_.stats().rows;
  const int64_t now_ns = clock_.now_ns();
  progress_ns_ = now_ns;
  if (rows > last_rows_) rows_per_step_.observe(static_cast<double>(rows - last_rows_));
  last_rows_ = rows;
  if (happened_.empty()) return;
  for (EngineDelivery& delivery : happened_) delivery.at_ns = now_ns;
  bool was_empty = false;
  {
    const std::lock_guard lock(outbox_mutex_);
    was_empty = outbox_.empty();
    if (was_empty) {
      outbox_.swap(happened_);
    } else {
      std::move(happened_.begin(), happened_.end(), std::back_inserter(outbox_));
    }
  }
  happened_.clear();
  if (was_empty) wake_();
}

}  // namespace quern
