#include "base/thread_pool.h"

#include <algorithm>

#include <sched.h>

#include "base/check.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace quern {
namespace {

constexpr int kSpins = 4000;  // x ~25 ns a pause = 100 us before a worker sleeps

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

// Spins while *value == old, then sleeps; returns once it differs.
template <typename T>
void wait_for_change(const std::atomic<T>& value, T old, std::atomic<int>* sleeping) {
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    pause();
  }
  sleeping->fetch_add(1);
  value.wait(old);
  sleeping->fetch_sub(1);
}

}  // namespace

FlushDenormals::FlushDenormals() : saved_(0) {
#if defined(__x86_64__)
  saved_ = _mm_getcsr();
  _mm_setcsr(saved_ | 0x8040u);  // FTZ | DAZ
#endif
}

FlushDenormals::~FlushDenormals() {
#if defined(__x86_64__)
  _mm_setcsr(saved_);
#endif
}

int ThreadPool::available_threads() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

ThreadPool::ThreadPool(int threads) {
  QUERN_CHECK(threads >= 1);
  workers_.reserve(static_cast<size_t>(threads - 1));
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(i); });
}

ThreadPool::~ThreadPool() {
  stopping_ = true;
  epoch_.fetch_add(1);
  epoch_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::work(int worker) {
  const FlushDenormals flush;
  uint32_t seen = 0;
  while (true) {
    wait_for_change(epoch_, seen, &sleeping_);
    ++seen;
    if (stopping_) return;
    (*body_)(worker);
    running_.fetch_sub(1, std::memory_order_release);
  }
}

void ThreadPool::run(FunctionRef<void(int)> body) {
  const FlushDenormals flush;
  if (workers_.empty()) {
    body(0);
    return;
  }
  body_ = &body;
  running_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
  epoch_.fetch_add(1);
  if (sleeping_.load() > 0) epoch_.notify_all();
  body(0);
  int spins = 0;
  while (running_.load(std::memory_order_acquire) != 0) {
    pause();
    // A worker may have lost its core to another process: give ours up rather than burn it.
    if (++spins % (16 * kSpins) == 0) std::this_thread::yield();
  }
}

void ThreadPool::for_each_chunk(int64_t count,
                                int64_t chunk,
                                FunctionRef<void(int64_t, int64_t, int)> body) {
  QUERN_CHECK(chunk >= 1);
  if (count <= 0) return;
  if (count <= chunk || workers_.empty()) {
    const FlushDenormals flush;
    for (int64_t begin = 0; begin < count; begin += chunk) {
      body(begin, std::min(begin + chunk, count), 0);
    }
    return;
  }
  std::atomic<int64_t> next{0};
  run([&](int worker) {
    while (true) {
      const int64_t begin = next.fetch_add(chunk, std::memory_order_relaxed);
      if (begin >= count) return;
      body(begin, std::min(begin + chunk, count), worker);
    }
  });
}

}  // namespace quern
