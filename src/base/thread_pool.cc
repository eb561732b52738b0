#include "base/thread_pool.h"

#include <algorithm>

#include <sched.h>

#include "base/check.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace quern {
namespace {

constexpr int kSpins = 4000;  // x 10 to 40 ns a pause: then a thread sleeps
constexpr int kSharesPerWorker = 2;

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("isb");  // "yield" takes no time on most cores
#else
  std::this_thread::yield();
#endif
}

// Spins for a while as long as value == old. Returns whether it differs now.
template <typename T>
bool spin_until_change(const std::atomic<T>& value, T old) {
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return true;
    pause();
  }
  return false;
}

}  // namespace

FlushDenormals::FlushDenormals() : saved_(0) {
#if defined(__x86_64__)
  saved_ = _mm_getcsr();
  _mm_setcsr(static_cast<unsigned>(saved_) | 0x8040u);  // FTZ | DAZ
#elif defined(__aarch64__)
  asm volatile("mrs %0, fpcr" : "=r"(saved_));
  asm volatile("msr fpcr, %0" ::"r"(saved_ | uint64_t{1} << 24));  // FZ
#endif
}

FlushDenormals::~FlushDenormals() {
#if defined(__x86_64__)
  _mm_setcsr(static_cast<unsigned>(saved_));
#elif defined(__aarch64__)
  asm volatile("msr fpcr, %0" ::"r"(saved_));
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
    if (!spin_until_change(epoch_, seen)) {
      sleeping_.fetch_add(1);
      epoch_.wait(seen);
      sleeping_.fetch_sub(1);
    }
    ++seen;
    if (stopping_) return;
    body_(worker);
    finished_.fetch_add(1);
    if (caller_sleeps_.load()) finished_.notify_one();
  }
}

void ThreadPool::run(FunctionRef<void(int)> body) {
  const FlushDenormals flush;
  if (workers_.empty()) {
    body(0);
    return;
  }
  body_ = body;
  const auto all = static_cast<uint32_t>(workers_.size());
  const uint32_t target = (epoch_.fetch_add(1) + 1) * all;
  if (sleeping_.load() > 0) epoch_.notify_all();
  body(0);
  for (uint32_t done = finished_.load(); done != target; done = finished_.load()) {
    if (spin_until_change(finished_, done)) continue;
    // A worker may have lost its core to another process: give ours up rather than burn it.
    caller_sleeps_.store(true);
    finished_.wait(done);
    caller_sleeps_.store(false);
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
  const int64_t chunks = (count + chunk - 1) / chunk;
  const int64_t shares = int64_t{kSharesPerWorker} * size();
  const auto share_of = [shares](int64_t left) { return (left + shares - 1) / shares; };
  const int64_t first = share_of(chunks);
  // What changes lies in another cache line than what does not.
  alignas(64) std::atomic<int64_t> next{size() * first};
  alignas(64) const auto take = [&next, count, chunk, chunks, first, share_of, body](int worker) {
    int64_t begin = worker * first;
    int64_t share = first;
    while (begin < chunks) {
      const int64_t end = std::min(begin + share, chunks);
      for (int64_t c = begin; c < end; ++c) {
        body(c * chunk, std::min((c + 1) * chunk, count), worker);
      }
      begin = next.load(std::memory_order_relaxed);
      do {
        share = share_of(chunks - begin);
      } while (begin < chunks &&
               !next.compare_exchange_weak(begin, begin + share, std::memory_order_relaxed));
    }
  };
  run(take);
}

}  // namespace quern
