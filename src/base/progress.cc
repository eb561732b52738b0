#include "base/progress.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include <fmt/format.h>
#include <unistd.h>

namespace quern {
namespace {

constexpr int kBarWidth = 24;
constexpr int64_t kRedrawNs = 100'000'000;
constexpr int64_t kLineNs = 2'000'000'000;  // a log wants no more than a line every two seconds

std::string duration(double seconds) {
  const auto total = static_cast<int64_t>(std::llround(seconds));
  if (total >= 3600) return fmt::format("{}h{:02}m", total / 3600, total / 60 % 60);
  return fmt::format("{}:{:02}", total / 60, total % 60);
}

std::string amount(int64_t count, const std::string& unit) {
  if (unit == "bytes") return fmt::format("{:.1f} MB", static_cast<double>(count) * 1e-6);
  return fmt::format("{}", count);
}

}  // namespace

Progress::Progress(
    std::string title, int64_t total, std::string unit, const Clock& clock, ProgressOutput output)
    : title_(std::move(title)),
      unit_(std::move(unit)),
      total_(std::max<int64_t>(total, 1)),
      clock_(clock),
      start_ns_(clock.now_ns()),
      terminal_(::isatty(STDERR_FILENO) != 0),
      silent_(output == ProgressOutput::kNone) {}

Progress::~Progress() {
  if (silent_ || drawn_ns_ == 0) return;
  if (drawn_done_ != done_ || terminal_) draw(clock_.now_ns());
  if (terminal_) std::fputc('\n', stderr);
}

void Progress::update(int64_t done) {
  if (first_done_ < 0) first_done_ = done;
  done_ = done;
  if (silent_) return;
  const int64_t now = clock_.now_ns();
  const int64_t tenth = done_ * 10 / total_;
  const int64_t since_ns = now - std::max(drawn_ns_, start_ns_);
  const bool due = terminal_ ? since_ns >= kRedrawNs : tenth != drawn_tenth_ && since_ns >= kLineNs;
  if (!due) return;
  drawn_tenth_ = tenth;
  draw(now);
}

void Progress::draw(int64_t now_ns) {
  drawn_ns_ = std::max<int64_t>(now_ns, 1);
  drawn_done_ = done_;
  const double seconds = static_cast<double>(now_ns - start_ns_) * 1e-9;
  const double share =
      std::clamp(static_cast<double>(done_) / static_cast<double>(total_), 0.0, 1.0);
  const int64_t fresh = done_ - std::max<int64_t>(first_done_, 0);
  std::string left;
  if (fresh > 0 && done_ < total_) {
    left = " left " +
           duration(seconds * static_cast<double>(total_ - done_) / static_cast<double>(fresh));
  }
  const std::string counts = fmt::format("{}/{}{}", amount(done_, unit_), amount(total_, unit_),
                                         unit_ == "bytes" ? "" : " " + unit_);
  if (!terminal_) {
    fmt::print(stderr, "{}: {:.0f}% {} in {}{} {}\n", title_, share * 100, counts,
               duration(seconds), left, note_);
    return;
  }
  const int full = static_cast<int>(share * kBarWidth);
  fmt::print(stderr, "\r\033[K{} [{}{}] {:3.0f}% {} {}{} {}", title_,
             std::string(static_cast<size_t>(full), '#'),
             std::string(static_cast<size_t>(kBarWidth - full), '.'), share * 100, counts,
             duration(seconds), left, note_);
  std::fflush(stderr);
}

}  // namespace quern
