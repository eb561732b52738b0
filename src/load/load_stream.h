// One client of a run: sends a planned request, reads the stream that answers it and writes down
// what came of it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "load/http_connection.h"
#include "load/record.h"
#include "load/sse_parser.h"
#include "load/workload.h"

namespace quern {

class LoadStream final : public HttpSink {
 public:
  // `on_finished` is called from the event loop; the next start() may come from within.
  LoadStream(boost::asio::io_context& io,
             const HttpTarget& target,
             const Clock& clock,
             std::function<void(LoadStream&)> on_finished);

  // `head` is everything of a request's head but its length. Times are counted from `start_ns`.
  void start(PlannedRequest planned, const std::string& head, int64_t start_ns, int64_t due_ns);

  // Ends it as a failure, or as interrupted.
  void time_out(double timeout_seconds);
  void interrupt();

  bool busy() const { return busy_; }

  // When it began, from the start of the run.
  int64_t sent_ns() const { return record_.sent_ns; }

  int64_t connects() const { return connection_.connects(); }

  // Whether no connection could be opened.
  bool unreachable() const { return end_ == HttpEnd::kNoConnection; }

  // Requires that it is not busy. Leaves nothing behind.
  LoadRecord take_record() { return std::move(record_); }

  void on_sent() override;
  void on_head(int status) override;
  void on_body(std::string_view bytes, int64_t now_ns) override;
  void on_end(HttpEnd end, const std::string& error, int64_t now_ns) override;

 private:
  void on_event(std::string_view data, int64_t now_ns);
  void take_output(int64_t now_ns);
  void stop(Outcome outcome, std::string error);
  void judge(HttpEnd end, const std::string& error);
  void judge_hostile();
  void judge_good();

  const Clock& clock_;
  std::function<void(LoadStream&)> on_finished_;
  HttpConnection connection_;
  SseParser parser_;
  PlannedRequest planned_;
  LoadRecord record_;
  std::string error_body_;
  int64_t start_ns_ = 0;
  int64_t output_ns_ = 0;  // of the latest chunk with output
  HttpEnd end_ = HttpEnd::kComplete;
  bool busy_ = false;
  bool stopped_ = false;  // by this side, with the outcome in the record
  bool done_ = false;     // "[DONE]" has come
};

}  // namespace quern
