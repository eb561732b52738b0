#include "base/thread_pool.h"

#include <algorithm>
#include <array>
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

TEST(ThreadPool, CoversEveryElementOnceInWholeChunks) {
  constexpr int64_t kChunk = 10;
  for (const int threads : {1, 2, 4, 7}) {
    ThreadPool pool(threads);
    for (const int64_t count : {0, 1, 9, 10, 11, 20, 35, 69, 70, 71, 1003, 2000}) {
      std::vector<std::atomic<int>> calls(static_cast<size_t>(count));
      std::atomic<int> wrong = 0;
      pool.for_each_chunk(count, kChunk, [&](int64_t begin, int64_t end, int worker) {
        if (begin % kChunk != 0 || end != std::min(begin + kChunk, count)) ++wrong;
        if (worker < 0 || worker >= threads) ++wrong;
        for (int64_t i = begin; i < end; ++i) calls[static_cast<size_t>(i)]++;
      });
      EXPECT_EQ(wrong, 0) << threads << " " << count;
      for (const auto& calls_of : calls) ASSERT_EQ(calls_of, 1) << threads << " " << count;
    }
  }
}

TEST(ThreadPool, AWorkerThatStandsStillKeepsNoMoreThanItBeganWith) {
  ThreadPool pool(2);
  std::array<std::atomic<int>, 2> chunks = {};
  pool.for_each_chunk(400, 1, [&](int64_t, int64_t, int worker) {
    while (worker == 1 && chunks[0] < 300) std::this_thread::yield();
    chunks[static_cast<size_t>(worker)]++;
  });
  EXPECT_EQ(chunks[0], 300);
  EXPECT_EQ(chunks[1], 100);
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
