#include "base/thread_pool.h"

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace quern {
namespace {

TEST(ThreadPool, RunsTheBodyOnceOnEveryWorker) {
  ThreadPool pool(3);
  for (int round = 0; round < 1000; ++round) {
    std::vector<std::atomic<int>> calls(3);
    pool.run([&](int worker) { calls[static_cast<size_t>(worker)]++; });
    for (const auto& count : calls) ASSERT_EQ(count, 1);
  }
}

TEST(ThreadPool, CoversEveryElementOnce) {
  for (const int threads : {1, 2, 4}) {
    ThreadPool pool(threads);
    std::vector<std::atomic<int>> calls(1003);
    pool.for_each_chunk(1003, 10, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) calls[static_cast<size_t>(i)]++;
    });
    for (const auto& count : calls) ASSERT_EQ(count, 1);
  }
}

// Longer than a waiting thread spins, and about as long: both ways of waking race with the end.
TEST(ThreadPool, ReturnsOnceTheSlowestWorkerIsDone) {
  ThreadPool pool(3);
  for (int round = 0; round < 60; ++round) {
    std::vector<std::atomic<int>> calls(3);
    pool.run([&](int worker) {
      const int microseconds = worker == 0 ? 0 : round * 10 + worker * 20;
      std::this_thread::sleep_for(std::chrono::microseconds(microseconds));
      calls[static_cast<size_t>(worker)]++;
    });
    for (const auto& count : calls) ASSERT_EQ(count, 1);
    if (round % 8 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));  // workers sleep
  }
}

TEST(ThreadPool, WorkersFlushDenormalsAndTheCallerIsRestored) {
  ThreadPool pool(2);
  volatile float tiny = 1e-38f;
  std::vector<float> products(2);
  pool.run([&](int worker) { products[static_cast<size_t>(worker)] = tiny * 0.01f; });
  EXPECT_EQ(products[0], 0.0f);
  EXPECT_EQ(products[1], 0.0f);
  EXPECT_GT(tiny * 0.01f, 0.0f);
}

}  // namespace
}  // namespace quern
