#include "engine/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quern {
namespace {

using testing::ElementsAre;
using testing::Pair;

// A scheduler whose batches are computed by nobody: commit() notes them as done.
class SchedulerTest : public testing::Test {
 protected:
  void start(SchedulerLimits limits, int64_t blocks) {
    if (limits.logit_rows == 0) limits.logit_rows = limits.sequences;
    blocks_.emplace(blocks);
    scheduler_.emplace(limits);
  }

  Result<Unit> add(int64_t prompt_tokens, int64_t max_tokens) {
    Request request;
    request.prompt.assign(static_cast<size_t>(prompt_tokens), 1);
    request.max_tokens = max_tokens;
    return scheduler_->add(
        std::make_unique<Sequence>(++last_id_, std::move(request), *blocks_, nullptr));
  }

  // The next step's (id, count) pairs, computed and given a token each where they complete.
  std::vector<std::pair<RequestId, int64_t>> step() {
    std::vector<std::pair<RequestId, int64_t>> taken;
    for (const ScheduledChunk& chunk : scheduler_->schedule(*blocks_)) {
      taken.emplace_back(chunk.sequence->id, chunk.count);
      const bool completes = chunk.completes();
      chunk.sequence->computed += chunk.count;
      if (completes) chunk.sequence->tokens.push_back(1);
    }
    EXPECT_TRUE(scheduler_->consistent());
    EXPECT_TRUE(blocks_->consistent());
    EXPECT_EQ(blocks_->references(), scheduler_->owned_blocks());
    return taken;
  }

  Sequence* find(RequestId id) {
    return scheduler_->find([id](const Sequence& sequence) { return sequence.id == id; });
  }

  std::optional<BlockManager> blocks_;  // outlives the sequences
  std::optional<Scheduler> scheduler_;
  RequestId last_id_ = 0;
};

TEST_F(SchedulerTest, SharesOneBudgetBetweenDecodeAndPrefill) {
  start({.batch_tokens = 10, .sequences = 4, .waiting = 9}, 100);
  ASSERT_TRUE(add(4, 50) && add(20, 50) && add(3, 50));
  EXPECT_THAT(step(), ElementsAre(Pair(1, 4), Pair(2, 6)));
  EXPECT_THAT(step(), ElementsAre(Pair(1, 1), Pair(2, 9)));
  EXPECT_THAT(step(), ElementsAre(Pair(1, 1), Pair(2, 5), Pair(3, 3)));
  EXPECT_THAT(step(), ElementsAre(Pair(1, 1), Pair(2, 1), Pair(3, 1)));
}

TEST_F(SchedulerTest, CutsPromptsToThePrefillChunk) {
  start({.batch_tokens = 10, .sequences = 4, .waiting = 9, .prefill_chunk = 3}, 100);
  ASSERT_TRUE(add(7, 50) && add(2, 50));
  EXPECT_THAT(step(), ElementsAre(Pair(1, 3), Pair(2, 2)));
  EXPECT_THAT(step(), ElementsAre(Pair(1, 3), Pair(2, 1)));
  EXPECT_THAT(step(), ElementsAre(Pair(1, 1), Pair(2, 1)));
}

TEST_F(SchedulerTest, LeavesARowToEachOneBehind) {
  start({.batch_tokens = 10, .sequences = 4, .waiting = 9}, 100);
  ASSERT_TRUE(add(4, 50) && add(3, 50));
  step();
  Sequence& first = *find(1);
  first.computed = 0;  // as if it had all to compute again
  first.tokens.resize(30, 1);
  EXPECT_THAT(step(), ElementsAre(Pair(1, 9), Pair(2, 1)));
}

TEST_F(SchedulerTest, CutsPromptsWhoseLogitsAreAllWantedToTheirRows) {
  start({.batch_tokens = 20, .logit_rows = 5, .sequences = 4, .waiting = 9}, 100);
  ASSERT_TRUE(add(3, 50));
  step();
  Request request;
  request.prompt.assign(9, 1);
  request.prompt_logprobs = 0;
  ASSERT_TRUE(scheduler_->add(
      std::make_unique<Sequence>(++last_id_, std::move(request), *blocks_, nullptr)));
  EXPECT_THAT(step(), ElementsAre(Pair(1, 1), Pair(2, 4)));
  find(2)->prompt_logprobs.resize(4);
  EXPECT_THAT(step(), ElementsAre(Pair(1, 1), Pair(2, 4)));
  find(2)->prompt_logprobs.resize(8);
  EXPECT_THAT(step(), ElementsAre(Pair(1, 1), Pair(2, 1)));
}

TEST_F(SchedulerTest, RunsNoMoreThanItsLimitOfSequences) {
  start({.batch_tokens = 10, .sequences = 2, .waiting = 9}, 100);
  ASSERT_TRUE(add(1, 50) && add(1, 50) && add(1, 50));
  EXPECT_THAT(step(), ElementsAre(Pair(1, 1), Pair(2, 1)));
  scheduler_->remove(*find(1));
  EXPECT_THAT(step(), ElementsAre(Pair(2, 1), Pair(3, 1)));
}

TEST_F(SchedulerTest, PreemptsTheYoungestWhenBlocksRunOut) {
  start({.batch_tokens = 200, .sequences = 4, .waiting = 9}, 4);
  ASSERT_TRUE(add(kKvBlockTokens, 80) && add(kKvBlockTokens, 80));
  EXPECT_THAT(step(), ElementsAre(Pair(1, kKvBlockTokens), Pair(2, kKvBlockTokens)));
  for (int i = 0; i < kKvBlockTokens; ++i) EXPECT_THAT(step(), ElementsAre(Pair(1, 1), Pair(2, 1)));
  EXPECT_THAT(step(), ElementsAre(Pair(1, 1)));  // the third block of 1: 2 gives its own back
  EXPECT_EQ(scheduler_->preemptions(), 1);
  EXPECT_EQ(find(2)->blocks.size(), 0);
  EXPECT_EQ(find(2)->output_tokens(), kKvBlockTokens + 1);  // kept
  EXPECT_THAT(step(), ElementsAre(Pair(1, 1)));             // 2 needs three blocks, one is free
  scheduler_->remove(*find(1));
  EXPECT_THAT(step(), ElementsAre(Pair(2, 2 * kKvBlockTokens + 1)));  // recomputes all it knows
}

TEST_F(SchedulerTest, LetsThePreemptedGoBeforeThoseThatNeverRan) {
  start({.batch_tokens = 200, .sequences = 2, .waiting = 9}, 4);
  ASSERT_TRUE(add(kKvBlockTokens, 80) && add(kKvBlockTokens, 80) && add(1, 50));
  while (scheduler_->preemptions() == 0) step();
  EXPECT_THAT(step(), ElementsAre(Pair(1, 1)));  // 3 would fit and waits its turn all the same
  scheduler_->remove(*find(1));
  const auto taken = step();
  ASSERT_FALSE(taken.empty());
  EXPECT_EQ(taken[0].first, 2u);
}

TEST_F(SchedulerTest, AdmitsOnlyWhatLeavesTheRunningABlockToGrow) {
  start({.batch_tokens = 200, .sequences = 4, .waiting = 9}, 3);
  ASSERT_TRUE(add(kKvBlockTokens, 40) && add(2 * kKvBlockTokens, 10));
  EXPECT_THAT(step(), ElementsAre(Pair(1, kKvBlockTokens)));  // two are free, 2 would take both
}

TEST_F(SchedulerTest, RefusesWhenTheQueueIsFullAndCountsThePreemptedNot) {
  start({.batch_tokens = 200, .sequences = 2, .waiting = 2}, 4);
  ASSERT_TRUE(add(kKvBlockTokens, 80) && add(kKvBlockTokens, 80));
  const Result<Unit> full = add(1, 1);
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().code, ErrorCode::kExhausted);
  EXPECT_EQ(full.error().message, "the queue is full: 2 requests are waiting");
  while (scheduler_->preemptions() == 0) step();
  EXPECT_EQ(scheduler_->waiting(), 1);
  EXPECT_TRUE(add(1, 1) && add(1, 1));
  EXPECT_FALSE(add(1, 1));
}

TEST_F(SchedulerTest, RemovesSequencesWaitingOrRunning) {
  start({.batch_tokens = 8, .sequences = 1, .waiting = 9}, 4);
  ASSERT_TRUE(add(8, 8) && add(8, 8));
  step();
  scheduler_->remove(*find(2));
  EXPECT_EQ(scheduler_->waiting(), 0);
  scheduler_->remove(*find(1));
  EXPECT_TRUE(scheduler_->idle());
  EXPECT_EQ(blocks_->free(), 4);
  EXPECT_THAT(step(), ElementsAre());
  EXPECT_EQ(find(1), nullptr);
}

}  // namespace
}  // namespace quern
