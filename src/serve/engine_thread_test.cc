#include "serve/engine_thread.h"

#include <condition_variable>
#include <map>
#include <mutex>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "serve/server_test_support.h"

namespace quern {
namespace {

using testing::HasSubstr;

Request request(int64_t max_tokens) {
  Request made;
  made.prompt = {5, 5, 5};
  made.max_tokens = max_tokens;
  return made;
}

std::vector<Request> requests(std::initializer_list<int64_t> max_tokens) {
  std::vector<Request> made;
  for (const int64_t count : max_tokens) made.push_back(request(count));
  return made;
}

// An engine thread and everything that it delivered.
struct Bench {
  explicit Bench(SimulatedModelOptions options = test_model_options(), int64_t max_inbox = 8)
      : model(std::move(options)), engine(model, nullptr, {}, clock) {
    thread = std::make_unique<EngineThread>(
        engine, clock, nullptr, EngineThreadOptions{.max_inbox = max_inbox, .max_sequences = 8},
        [this] {
          const std::lock_guard lock(mutex);
          ++wakes;
          changed.notify_all();
        });
  }

  ~Bench() {
    model.release();
    thread.reset();  // before what its last wake refers to
  }

  // Takes deliveries until `call` has ended `count` times or was refused.
  void wait_for_end(uint64_t call, int count) {
    int ended = 0;
    size_t seen = 0;
    while (true) {
      thread->take(all);
      for (; seen < all.size(); ++seen) {
        if (all[seen].call != call) continue;
        const auto* event = std::get_if<Event>(&all[seen].what);
        if (event == nullptr) return;
        ended += std::holds_alternative<FinishedEvent>(*event) ? 1 : 0;
      }
      if (ended >= count) return;
      std::unique_lock lock(mutex);
      changed.wait(lock, [&] { return wakes > wakes_seen; });
      wakes_seen = wakes;
    }
  }

  std::vector<FinishReason> endings(uint64_t call) const {
    std::vector<FinishReason> found;
    for (const EngineDelivery& delivery : all) {
      const auto* event = std::get_if<Event>(&delivery.what);
      if (delivery.call != call || event == nullptr) continue;
      if (const auto* f = std::get_if<FinishedEvent>(event)) found.push_back(f->reason);
    }
    return found;
  }

  SteadyClock clock;
  GatedModel model;
  Engine engine;
  std::unique_ptr<EngineThread> thread;
  std::mutex mutex;
  std::condition_variable changed;
  int wakes = 0;
  int wakes_seen = 0;
  std::vector<EngineDelivery> all;
};

TEST(EngineThread, DeliversEveryEventOfEveryRequest) {
  Bench bench;
  ASSERT_TRUE(bench.thread->submit(1, requests({3, 5})));
  ASSERT_TRUE(bench.thread->submit(2, requests({2})));
  bench.wait_for_end(1, 2);
  bench.wait_for_end(2, 1);
  std::map<std::pair<uint64_t, size_t>, int> tokens;
  for (const EngineDelivery& delivery : bench.all) {
    const Event& event = std::get<Event>(delivery.what);
    if (std::holds_alternative<TokenEvent>(event)) ++tokens[{delivery.call, delivery.index}];
    EXPECT_GT(delivery.at_ns, 0);
  }
  EXPECT_EQ((tokens[{1, 0}]), 3);
  EXPECT_EQ((tokens[{1, 1}]), 5);
  EXPECT_EQ((tokens[{2, 0}]), 2);
  const EngineSnapshot after = bench.thread->snapshot();
  EXPECT_EQ(after.outstanding, 0);
  EXPECT_EQ(after.stats.completion_tokens, 10);
  EXPECT_EQ(after.stats.running, 0);
}

TEST(EngineThread, WakesOnceForABatch) {
  Bench bench;
  bench.model.hold();
  for (uint64_t call = 1; call <= 8; ++call) {
    ASSERT_TRUE(bench.thread->submit(call, requests({1})));
  }
  bench.model.release();
  for (uint64_t call = 1; call <= 8; ++call) bench.wait_for_end(call, 1);
  EXPECT_LE(bench.wakes, 3);  // 16 events
}

TEST(EngineThread, RefusesWhatTheInboxCannotHold) {
  Bench bench(test_model_options(), 2);
  bench.model.hold();
  ASSERT_TRUE(bench.thread->submit(1, requests({1})));
  bench.model.wait_inside();
  EXPECT_TRUE(bench.thread->submit(2, requests({1, 1})));
  EXPECT_FALSE(bench.thread->submit(3, requests({1})));
  EXPECT_EQ(bench.thread->snapshot().inbox, 2);
  bench.model.release();
  bench.wait_for_end(2, 2);
  EXPECT_TRUE(bench.thread->submit(4, requests({1})));
  bench.wait_for_end(4, 1);
}

TEST(EngineThread, CancelsInTheNextStep) {
  Bench bench;
  bench.model.hold();
  ASSERT_TRUE(bench.thread->submit(1, requests({1000, 1000})));
  bench.model.wait_inside();
  ASSERT_TRUE(bench.thread->submit(2, requests({1000})));
  bench.thread->cancel(1);
  bench.thread->cancel(2);
  bench.thread->cancel(99);
  bench.model.release();
  bench.wait_for_end(1, 2);
  bench.wait_for_end(2, 1);
  EXPECT_THAT(bench.endings(1), testing::Each(FinishReason::kCancelled));
  EXPECT_THAT(bench.endings(2), testing::Each(FinishReason::kCancelled));
  EXPECT_LE(bench.thread->snapshot().stats.steps, 2);
}

TEST(EngineThread, RefusesACallWholeWhenOneRequestIsWrong) {
  Bench bench;
  ASSERT_TRUE(bench.thread->submit(1, requests({10, 1'000'000})));
  bench.wait_for_end(1, 2);
  ASSERT_EQ(bench.all.size(), 1u);
  EXPECT_THAT(std::get<Error>(bench.all[0].what).message, HasSubstr("max_tokens"));
  ASSERT_TRUE(bench.thread->submit(2, requests({1})));
  bench.wait_for_end(2, 1);
  EXPECT_EQ(bench.thread->snapshot().outstanding, 0);
  EXPECT_EQ(bench.endings(1).size(), 0u);
}

TEST(EngineThread, TakesMoreRequestsOfACallThatRuns) {
  Bench bench;
  bench.model.hold();
  ASSERT_TRUE(bench.thread->submit(1, requests({4})));
  bench.model.wait_inside();
  ASSERT_TRUE(bench.thread->submit(1, requests({4, 4}), 1));
  bench.model.release();
  bench.wait_for_end(1, 3);
  std::map<size_t, int> tokens;
  for (const EngineDelivery& delivery : bench.all) {
    if (std::holds_alternative<TokenEvent>(std::get<Event>(delivery.what)))
      ++tokens[delivery.index];
  }
  EXPECT_EQ(tokens, (std::map<size_t, int>{{0, 4}, {1, 4}, {2, 4}}));
  EXPECT_EQ(bench.thread->snapshot().outstanding, 0);
}

TEST(EngineThread, EndsWhatRunsOfACallThatItRefusesLater) {
  Bench bench;
  bench.model.hold();
  ASSERT_TRUE(bench.thread->submit(1, requests({4000})));
  bench.model.wait_inside();
  ASSERT_TRUE(bench.thread->submit(1, requests({1, 1'000'000}), 1));
  ASSERT_TRUE(bench.thread->submit(2, requests({20})));
  bench.model.release();
  bench.wait_for_end(2, 1);
  EXPECT_EQ(bench.endings(1).size(), 0u);
  const EngineSnapshot after = bench.thread->snapshot();
  EXPECT_EQ(after.outstanding, 0);
  EXPECT_EQ(after.stats.running, 0);
}

TEST(EngineThread, TellsSinceWhenThereWasNoProgress) {
  Bench bench;
  bench.model.hold();
  const int64_t before_ns = bench.clock.now_ns();
  ASSERT_TRUE(bench.thread->submit(1, requests({1})));
  bench.model.wait_inside();
  const EngineSnapshot held = bench.thread->snapshot();
  EXPECT_EQ(held.outstanding, 1);
  EXPECT_GE(held.progress_ns, before_ns);
  EXPECT_LE(held.progress_ns, bench.clock.now_ns());
}

TEST(EngineThread, EndsEveryRequestWithAnErrorWhenTheEngineBreaks) {
  Bench bench;
  bench.model.hold();
  ASSERT_TRUE(bench.thread->submit(1, requests({5, 5})));
  bench.model.wait_inside();
  ASSERT_TRUE(bench.thread->submit(2, requests({5})));
  bench.model.breaks = true;
  bench.model.release();
  bench.wait_for_end(1, 2);
  bench.wait_for_end(2, 1);
  EXPECT_THAT(bench.endings(1), testing::Each(FinishReason::kError));
  EXPECT_THAT(bench.endings(2), testing::Each(FinishReason::kError));
  EXPECT_TRUE(bench.thread->snapshot().failed);
  EXPECT_EQ(bench.thread->snapshot().outstanding, 0);
  EXPECT_FALSE(bench.thread->submit(3, requests({5})));
}

TEST(EngineThread, EndsWhileRequestsRun) {
  Bench bench;
  ASSERT_TRUE(bench.thread->submit(1, requests({4000})));
  bench.thread.reset();
  EXPECT_TRUE(bench.engine.consistent());
}

TEST(EngineTurns, AlternateBetweenThreads) {
  EngineTurns turns;
  int inside = 0;
  int most = 0;
  const auto work = [&] {
    for (int i = 0; i < 200; ++i) {
      turns.begin();
      most = std::max(most, ++inside);
      --inside;
      turns.end();
    }
  };
  std::thread first(work), second(work);
  first.join();
  second.join();
  EXPECT_EQ(most, 1);
}

}  // namespace
}  // namespace quern
