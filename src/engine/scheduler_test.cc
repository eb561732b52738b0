#include "engine/scheduler.h"

#include <algorithm>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/random.h"

namespace quern {
namespace {

using testing::ElementsAre;
using testing::Pair;

struct Rank {
  int32_t priority = 0;
  uint64_t tenant = 0;
  int32_t weight = 1;
};

// A scheduler whose batches are computed by nobody: commit() notes them as done.
class SchedulerTest : public testing::Test {
 protected:
  void start(SchedulerLimits limits, int64_t blocks) {
    if (limits.logit_rows == 0) limits.logit_rows = limits.sequences;
    blocks_.emplace(blocks);
    scheduler_.emplace(limits);
  }

  Result<Unit> add(int64_t prompt_tokens, int64_t max_tokens, const Rank& rank = {}) {
    Request request;
    request.prompt.assign(static_cast<size_t>(prompt_tokens), 1);
    request.max_tokens = max_tokens;
    request.tenant = rank.tenant;
    request.tenant_weight = rank.weight;
    request.priority = rank.priority;
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
      if (!completes) continue;
      chunk.sequence->tokens.push_back(1);
      scheduler_->charge_output(*chunk.sequence);
    }
    EXPECT_TRUE(scheduler_->consistent());
    EXPECT_TRUE(blocks_->consistent());
    EXPECT_EQ(blocks_->references(), scheduler_->owned_blocks());
    return taken;
  }

  // The same, and removes what has all its tokens. Returns the ids that ran for the first time.
  std::vector<RequestId> step_and_end() {
    std::vector<RequestId> begun;
    for (const auto& [id, count] : step()) {
      Sequence* sequence = find(id);
      if (!std::exchange(sequence->started, true)) begun.push_back(id);
      if (sequence->output_tokens() >= sequence->request.max_tokens) scheduler_->remove(*sequence);
    }
    return begun;
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

TEST_F(SchedulerTest, AddsGuessesAsFarAsTheStepHasRows) {
  start({.batch_tokens = 8, .logit_rows = 6, .sequences = 3, .waiting = 9}, 3);
  ASSERT_TRUE(add(2, 50) && add(2, 50));
  step();
  const std::span<ScheduledChunk> chunks = scheduler_->schedule(*blocks_);
  ASSERT_EQ(chunks.size(), 2u);
  scheduler_->add_guesses(chunks[0], 3);
  EXPECT_EQ(chunks[0].guesses, 3);
  EXPECT_EQ(chunks[0].logit_rows, 4);
  EXPECT_EQ(chunks[0].rows(), 4);
  scheduler_->add_guesses(chunks[1], 3);
  EXPECT_EQ(chunks[1].guesses, 1);  // of six rows with logits
  EXPECT_EQ(scheduler_->preemptions(), 0);
}

TEST_F(SchedulerTest, PreemptsNobodyForAGuess) {
  start({.batch_tokens = 8, .logit_rows = 8, .sequences = 2, .waiting = 9}, 3);
  ASSERT_TRUE(add(1, 50) && add(kKvBlockTokens, 30));
  while (find(1)->known() < kKvBlockTokens - 1) step();
  const std::span<ScheduledChunk> chunks = scheduler_->schedule(*blocks_);
  ASSERT_EQ(chunks.size(), 2u);
  scheduler_->add_guesses(chunks[0], 3);
  EXPECT_EQ(chunks[0].guesses, 1);  // the block's last position
  EXPECT_EQ(scheduler_->preemptions(), 0);
}

TEST_F(SchedulerTest, RefusesMoreTokensThanMayWait) {
  start({.batch_tokens = 8, .sequences = 1, .waiting = 9, .waiting_tokens = 10}, 40);
  EXPECT_TRUE(add(30, 1));  // alone it may be longer
  const Result<Unit> refused = add(1, 1);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kExhausted);
  EXPECT_EQ(refused.error().message,
            "the queue is full: 30 prompt tokens are waiting, 1 more exceed 10");
  EXPECT_EQ(scheduler_->waiting_tokens(), 30);
  step();
  EXPECT_EQ(scheduler_->waiting_tokens(), 0);
  EXPECT_TRUE(add(6, 1) && add(4, 1));
  EXPECT_FALSE(add(1, 1));
  EXPECT_EQ(scheduler_->refused_tokens(), 2);
  EXPECT_EQ(scheduler_->refused_requests(), 0);
}

TEST_F(SchedulerTest, AdmitsTheTenantThatWasServedLeast) {
  start({.batch_tokens = 8, .sequences = 1, .waiting = 9}, 40);
  ASSERT_TRUE(add(4, 2, {.tenant = 1}) && add(4, 2, {.tenant = 1}) && add(4, 2, {.tenant = 1}));
  ASSERT_TRUE(add(4, 2, {.tenant = 2}) && add(4, 2, {.tenant = 2}));
  std::vector<RequestId> order;
  while (!scheduler_->idle()) {
    for (const RequestId id : step_and_end()) order.push_back(id);
  }
  EXPECT_THAT(order, ElementsAre(1, 4, 2, 5, 3));
}

TEST_F(SchedulerTest, SharesInProportionToWeights) {
  start({.batch_tokens = 16, .sequences = 2, .waiting = 20}, 40);
  std::map<uint64_t, int> begun, waiting;
  for (int i = 0; i < 4000; ++i) {
    for (; waiting[1] < 5; ++waiting[1]) ASSERT_TRUE(add(4, 3, {.tenant = 1, .weight = 3}));
    for (; waiting[2] < 5; ++waiting[2]) ASSERT_TRUE(add(4, 3, {.tenant = 2}));
    for (const auto& [id, count] : step()) {
      Sequence* sequence = find(id);
      const uint64_t tenant = sequence->request.tenant;
      if (!std::exchange(sequence->started, true)) {
        ++begun[tenant];
        --waiting[tenant];
      }
      if (sequence->output_tokens() >= 3) scheduler_->remove(*sequence);
    }
  }
  EXPECT_GT(begun[2], 300);
  EXPECT_NEAR(static_cast<double>(begun[1]) / begun[2], 3.0, 0.1);
}

TEST_F(SchedulerTest, LetsNoFloodOfOneTenantDelayAnother) {
  start({.batch_tokens = 16, .sequences = 2, .waiting = 60}, 40);
  RequestId polite = 0;
  int64_t overtakers = 0, served = 0;
  for (int i = 0; i < 2000; ++i) {
    while (scheduler_->waiting() < 50) ASSERT_TRUE(add(9, 5, {.tenant = 1}));
    if (polite == 0) {
      ASSERT_TRUE(add(9, 5, {.tenant = 2}));
      polite = last_id_;
      overtakers = 0;
    }
    for (const RequestId id : step_and_end()) {
      ++overtakers;
      if (id != polite) continue;
      EXPECT_LE(overtakers, 3);
      polite = 0;
      ++served;
    }
  }
  EXPECT_GT(served, 300);
}

TEST_F(SchedulerTest, GivesTheOldestItsTurnHoweverManyNewTenantsCome) {
  start({.batch_tokens = 16, .sequences = 1, .waiting = 9}, 40);
  ASSERT_TRUE(add(16, 8, {.tenant = 1}));
  step_and_end();
  ASSERT_TRUE(add(1, 1, {.tenant = 1}));  // behind everyone who never was served
  uint64_t newcomer = 2;
  for (int admissions = 0;; ++admissions) {
    ASSERT_LE(admissions, 40);
    while (scheduler_->waiting() < 4) ASSERT_TRUE(add(1, 1, {.tenant = newcomer++}));
    const std::vector<RequestId> begun = step_and_end();
    if (std::find(begun.begin(), begun.end(), RequestId{2}) != begun.end()) break;
  }
  EXPECT_GT(newcomer, 20u);
}

TEST_F(SchedulerTest, AdmitsTheHigherPriorityFirst) {
  start({.batch_tokens = 8, .sequences = 1, .waiting = 9}, 40);
  ASSERT_TRUE(add(1, 1, {.priority = 5}) && add(1, 1, {.priority = 1}));
  ASSERT_TRUE(add(1, 1, {.priority = 1}) && add(1, 1, {.priority = -1}));
  std::vector<RequestId> order;
  while (!scheduler_->idle()) {
    for (const RequestId id : step_and_end()) order.push_back(id);
  }
  EXPECT_THAT(order, ElementsAre(4, 2, 3, 1));
}

TEST_F(SchedulerTest, PreemptsTheLowestPriorityThenTheYoungest) {
  start({.batch_tokens = 200, .sequences = 4, .waiting = 9}, 6);
  ASSERT_TRUE(add(kKvBlockTokens, 80, {.priority = 2}) && add(kKvBlockTokens, 80) &&
              add(kKvBlockTokens, 80));
  std::vector<RequestId> preempted;
  while (preempted.size() < 2) {
    const int64_t before = scheduler_->preemptions();
    step();
    if (scheduler_->preemptions() == before) continue;
    for (const RequestId id : {1u, 2u, 3u}) {
      const bool is_new = std::find(preempted.begin(), preempted.end(), id) == preempted.end();
      if (find(id)->blocks.size() == 0 && is_new) preempted.push_back(id);
    }
  }
  EXPECT_THAT(preempted, ElementsAre(1, 3));
}

TEST_F(SchedulerTest, AdmitsAHigherPriorityAtTheCostOfTheLowest) {
  start({.batch_tokens = 200, .sequences = 2, .waiting = 9}, 100);
  ASSERT_TRUE(add(5, 80, {.priority = 1}) && add(5, 80, {.priority = 2}));
  EXPECT_THAT(step(), ElementsAre(Pair(1, 5), Pair(2, 5)));
  ASSERT_TRUE(add(5, 80, {.priority = 2}));  // no higher than the lowest that runs
  EXPECT_THAT(step(), ElementsAre(Pair(1, 1), Pair(2, 1)));
  ASSERT_TRUE(add(5, 80));
  EXPECT_THAT(step(), ElementsAre(Pair(4, 5), Pair(1, 1)));
  EXPECT_EQ(scheduler_->waiting_preempted(), 1);
  scheduler_->remove(*find(4));
  EXPECT_THAT(step(), ElementsAre(Pair(1, 1), Pair(2, 7)));  // before 3, which never ran
}

TEST_F(SchedulerTest, PreemptsNobodyForAPriorityThatWouldNotFitEvenSo) {
  start({.batch_tokens = 200, .sequences = 4, .waiting = 9}, 4);
  ASSERT_TRUE(add(2 * kKvBlockTokens, 40) && add(5, 40, {.priority = 2}));
  EXPECT_THAT(step(), ElementsAre(Pair(1, 2 * kKvBlockTokens), Pair(2, 5)));
  ASSERT_TRUE(add(3 * kKvBlockTokens, 5, {.priority = 1}));
  EXPECT_THAT(step(), ElementsAre(Pair(1, 1), Pair(2, 1)));
  EXPECT_EQ(scheduler_->preemptions(), 0);
}

// Random loads of tenants old and new, with few blocks, so that preemption is common.
class Starvation : public SchedulerTest, public testing::WithParamInterface<uint64_t> {
 protected:
  int64_t pick(uint64_t stream, int64_t n) {
    const uint64_t bits = random_bits(GetParam(), stream, draws_++);
    return static_cast<int64_t>(bits % static_cast<uint64_t>(n));
  }

  void arrive() {
    const int64_t before = scheduler_->waiting();
    const auto tenant = static_cast<uint64_t>(pick(1, 2) == 0 ? pick(2, 3) : 1000 + pick(3, 1000));
    if (!add(1 + pick(4, 90), 1 + pick(5, 60), {.tenant = tenant})) return;
    // The oldest is overtaken 32 times at most, and so is each that is the oldest before this one.
    latest_[last_id_] = begun_ + 33 * (before + 1);
  }

  // Runs a step; the first in rank must advance.
  void advance() {
    const Sequence* first = scheduler_->find([](const Sequence& s) { return s.blocks.size() > 0; });
    const RequestId first_id = first == nullptr ? 0 : first->id;
    const auto taken = step();
    if (first_id != 0) {
      ASSERT_FALSE(taken.empty());
      EXPECT_EQ(taken[0].first, first_id);
    }
    for (const auto& [id, count] : taken) {
      EXPECT_GT(count, 0);
      Sequence* sequence = find(id);
      if (!std::exchange(sequence->started, true)) {
        EXPECT_LE(begun_++, latest_[id]) << "request " << id;
        latest_.erase(id);
      }
      if (sequence->output_tokens() >= sequence->request.max_tokens) scheduler_->remove(*sequence);
    }
  }

  std::map<RequestId, int64_t> latest_;  // by how many beginnings each must have begun
  int64_t begun_ = 0;
  uint64_t draws_ = 0;
};

TEST_P(Starvation, OfNobodyWithinAPriority) {
  start({.batch_tokens = 4 + pick(7, 60), .sequences = 1 + pick(8, 4), .waiting = 1 + pick(9, 20)},
        5 + pick(6, 10));
  for (int i = 0; i < 3000; ++i) {
    if (pick(10, 4) == 0) arrive();
    advance();
    if (HasFatalFailure()) return;
  }
  for (int i = 0; i < 20000 && !scheduler_->idle(); ++i) advance();
  EXPECT_TRUE(scheduler_->idle());
  EXPECT_TRUE(latest_.empty());
  EXPECT_EQ(blocks_->free(), blocks_->total());
}

INSTANTIATE_TEST_SUITE_P(Seeds, Starvation, testing::Range<uint64_t>(1, 41));

}  // namespace
}  // namespace quern
