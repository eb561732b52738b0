// Lines to a file or a pipe from a thread of its own, so that a full pipe or a slow disk delays
// nobody.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace quern {

class LogWriter {
 public:
  // Borrows the file descriptor. At most `max_lines` wait to be written.
  explicit LogWriter(int fd, size_t max_lines = 10000);
  LogWriter(const LogWriter&) = delete;
  LogWriter& operator=(const LogWriter&) = delete;
  ~LogWriter();  // writes what is waiting, unless that would block

  // Takes a line without its end, or drops and counts it when too many wait. Any thread; returns at
  // once.
  void write(std::string line);

  // Lines lost to a full queue or a failing file.
  int64_t dropped() const { return dropped_; }

  // Returns when all lines taken so far are written or lost. For tests.
  void drain();

 private:
  void run();
  bool write_all(const std::string& bytes);

  int fd_;
  size_t max_lines_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> waiting_;
  bool busy_ = false;
  std::atomic<bool> stopping_{false};
  std::atomic<int64_t> dropped_{0};
  std::thread thread_;
};

}  // namespace quern
