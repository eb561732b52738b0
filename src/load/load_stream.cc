#include "load/load_stream.h"

#include <utility>

#include <fmt/format.h>

namespace quern {
namespace {

constexpr size_t kMaxErrorBytes = 16 << 10;

bool is_refusal(int status) { return status == 429 || status == 503 || status == 529; }

}  // namespace

LoadStream::LoadStream(boost::asio::io_context& io,
                       const HttpTarget& target,
                       const Clock& clock,
                       std::function<void(LoadStream&)> on_finished)
    : clock_(clock), on_finished_(std::move(on_finished)), connection_(io, target, clock) {}

void LoadStream::start(PlannedRequest planned,
                       const std::string& head,
                       int64_t start_ns,
                       int64_t due_ns) {
  busy_ = true;
  stopped_ = false;
  done_ = false;
  start_ns_ = start_ns;
  parser_ = SseParser();
  error_body_.clear();
  record_ = LoadRecord{.index = planned.index,
                       .behaviour = planned.behaviour,
                       .due_ns = due_ns,
                       .max_tokens = planned.output_tokens};
  std::string request =
      fmt::format("{}Content-Length: {}\r\n\r\n{}", head, planned.body.size(), planned.body);
  planned.body = std::string();
  planned_ = std::move(planned);
  record_.sent_ns = clock_.now_ns() - start_ns_;
  connection_.start(std::move(request), *this);
}

void LoadStream::time_out(double timeout_seconds) {
  stop(Outcome::kFailed, fmt::format("no end of the answer within {:g} s", timeout_seconds));
}

void LoadStream::interrupt() { stop(Outcome::kInterrupted, ""); }

void LoadStream::stop(Outcome outcome, std::string error) {
  if (!busy_ || stopped_) return;
  stopped_ = true;
  record_.outcome = outcome;
  record_.error = std::move(error);
  connection_.cancel();
}

void LoadStream::on_sent() {
  if (planned_.behaviour == Behaviour::kDisconnect && planned_.disconnect_after == 0) {
    stop(Outcome::kDisconnected, "");
  }
}

void LoadStream::on_head(int status) { record_.status = status; }

void LoadStream::on_body(std::string_view bytes, int64_t now_ns) {
  if (record_.status != 200) {
    error_body_ += bytes.substr(0, kMaxErrorBytes - error_body_.size());
    return;
  }
  const bool ok = parser_.feed(bytes, [&](const SseEvent& event) {
    if (!stopped_) on_event(event.data, now_ns - start_ns_);
  });
  if (!ok) stop(Outcome::kFailed, "an event of the stream is too large");
}

void LoadStream::on_event(std::string_view data, int64_t now_ns) {
  const Result<StreamChunk> read = read_stream_chunk(data);
  if (!read) return stop(Outcome::kFailed, read.error().message);
  const StreamChunk& chunk = *read;
  done_ |= chunk.done;
  if (!chunk.error.empty() && record_.error.empty())
    record_.error = "in the stream: " + chunk.error;
  if (chunk.usage) {
    record_.usage = chunk.usage;
    if (chunk.choices) record_.counted_tokens = chunk.usage->completion_tokens;
  }
  if (!chunk.choices) return;
  record_.last_ns = now_ns;
  if (!chunk.finish_reason.empty()) record_.finish_reason = chunk.finish_reason;
  if (chunk.output) take_output(now_ns);
}

void LoadStream::take_output(int64_t now_ns) {
  if (record_.chunks++ == 0) {
    record_.first_ns = now_ns;
  } else {
    record_.gaps_ms.push_back(static_cast<float>(static_cast<double>(now_ns - output_ns_) * 1e-6));
  }
  output_ns_ = now_ns;
  if (planned_.behaviour == Behaviour::kDisconnect && record_.chunks >= planned_.disconnect_after) {
    stop(Outcome::kDisconnected, "");
  }
}

void LoadStream::on_end(HttpEnd end, const std::string& error, int64_t now_ns) {
  busy_ = false;
  end_ = end;
  record_.end_ns = now_ns - start_ns_;
  // An answer without visible text: its only chunk is its first.
  if (record_.first_ns < 0) record_.first_ns = record_.last_ns;
  if (!stopped_) judge(end, error);
  on_finished_(*this);
}

void LoadStream::judge(HttpEnd end, const std::string& error) {
  if (end != HttpEnd::kComplete) {
    record_.outcome = Outcome::kFailed;
    record_.error = error;
  } else if (is_refusal(record_.status)) {
    record_.outcome = Outcome::kRefused;
    record_.error = error_message(error_body_);
  } else if (planned_.behaviour == Behaviour::kHostile) {
    judge_hostile();
  } else {
    judge_good();
  }
}

void LoadStream::judge_hostile() {
  if (record_.status >= 400 && record_.status < 500) {
    record_.outcome = Outcome::kRebuffed;
    return;
  }
  record_.outcome = Outcome::kFailed;
  record_.error = fmt::format("{} was answered with {}, not 4xx", planned_.what, record_.status);
}

void LoadStream::judge_good() {
  record_.outcome = Outcome::kFailed;
  if (record_.status != 200) {
    record_.error = fmt::format("{}: {}", record_.status, error_message(error_body_));
  } else if (!record_.error.empty()) {
    return;  // what the stream said
  } else if (record_.last_ns < 0) {
    record_.error = "the answer has no event of a completion";
  } else if (!done_ && record_.finish_reason.empty()) {
    record_.error = "the stream ended without a finish_reason";
  } else {
    record_.outcome = Outcome::kOk;
  }
}

}  // namespace quern
