// The persistent workers of one engine. The caller is worker 0; the others spin for work for about
// 100 microseconds and then sleep in the kernel.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "base/function_ref.h"

namespace quern {

// Only one thread may call run() or for_each_chunk() at a time, and a body never calls back into
// the pool. Every worker, the caller included, flushes denormals to zero while a body runs.
class ThreadPool {
 public:
  // `threads` counts the caller; at least 1.
  explicit ThreadPool(int threads);
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool();

  // Cores that this process may use.
  static int available_threads();

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(worker) once on every worker and returns when all are done.
  void run(FunctionRef<void(int worker)> body);

  // Calls body(begin, end, worker) over chunks of [0, count), which have `chunk` elements, the last
  // one perhaps fewer. A worker takes neighbouring chunks, which come from memory faster: half of
  // its part at first, then ever smaller shares of what is left, so that a core that is slow for a
  // while does less. Runs on the caller alone when there is only one chunk.
  void for_each_chunk(int64_t count,
                      int64_t chunk,
                      FunctionRef<void(int64_t begin, int64_t end, int worker)> body);

 private:
  static constexpr auto kNothing = [](int) {};

  void work(int worker);

  // What workers wait for, and what they do then, in one cache line.
  alignas(64) std::atomic<uint32_t> epoch_{0};
  FunctionRef<void(int)> body_{kNothing};
  // What the caller waits for: goes up by the number of workers in every epoch, never back.
  alignas(64) std::atomic<uint32_t> finished_{0};
  // Seldom written.
  alignas(64) std::atomic<int> sleeping_{0};
  std::atomic<bool> caller_sleeps_{false};
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> workers_;
};

// Flushes denormals to zero (FTZ and DAZ) on this thread for the lifetime of the object: a denormal
// in a float loop costs 2.5 times.
class FlushDenormals {
 public:
  FlushDenormals();
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;
  ~FlushDenormals();

 private:
  uint64_t saved_;
};

}  // namespace quern
