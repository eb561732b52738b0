#include "serve/log_writer.h"

#include <algorithm>
#include <cerrno>

#include <poll.h>
#include <unistd.h>

namespace quern {
namespace {

constexpr int kPollMs = 100;          // how soon a blocked writer notices that it is to end
constexpr size_t kPieceBytes = 4096;  // PIPE_BUF: what a pipe that polls as writable takes whole

}  // namespace

LogWriter::LogWriter(int fd, size_t max_lines)
    : fd_(fd), max_lines_(max_lines), thread_([this] { run(); }) {}

LogWriter::~LogWriter() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void LogWriter::write(std::string line) {
  {
    const std::lock_guard lock(mutex_);
    if (waiting_.size() >= max_lines_) {
      ++dropped_;
      return;
    }
    waiting_.push_back(std::move(line));
  }
  changed_.notify_all();
}

void LogWriter::drain() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return waiting_.empty() && !busy_; });
}

void LogWriter::run() {
  std::vector<std::string> lines;
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stopping_ || !waiting_.empty(); });
    if (waiting_.empty()) return;
    lines.swap(waiting_);
    busy_ = true;
    lock.unlock();
    std::string bytes;
    for (const std::string& line : lines) bytes += line + '\n';
    if (!write_all(bytes)) dropped_ += static_cast<int64_t>(lines.size());
    lines.clear();
    lock.lock();
    busy_ = false;
    changed_.notify_all();
  }
}

bool LogWriter::write_all(const std::string& bytes) {
  size_t at = 0;
  while (at < bytes.size()) {
    // Asking first keeps a full pipe from holding up the end of the program.
    pollfd wanted{fd_, POLLOUT, 0};
    const int ready = poll(&wanted, 1, kPollMs);
    if (ready == 0 && stopping_) return false;
    if (ready <= 0) continue;
    const ssize_t count = ::write(fd_, bytes.data() + at, std::min(kPieceBytes, bytes.size() - at));
    if (count < 0 && errno != EINTR && errno != EAGAIN) return false;
    if (count > 0) at += static_cast<size_t>(count);
  }
  return true;
}

}  // namespace quern
