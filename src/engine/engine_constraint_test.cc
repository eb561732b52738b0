// Requests whose tokens a constraint picks.
#include <algorithm>
#include <memory>
#include <span>
#include <stdexcept>

#include <gtest/gtest.h>

#include "engine/engine.h"
#include "engine/simulated_model.h"
#include "engine/test_bench.h"
#include "engine/test_request.h"

namespace quern {
namespace {

TEST(EngineConstraint, FollowsAConstraintToItsEnd) {
  SimulatedBench bench(small_model(16));
  Request request = greedy_request({1}, 40);
  request.constraint = std::make_unique<HashConstraint>(9, 64, 6);
  const TestAnswer& answer = bench.run(std::move(request));
  EXPECT_EQ(answer.finished->reason, FinishReason::kStop);
  ASSERT_EQ(answer.tokens.size(), 6u);
  HashConstraint replay(9, 64, 6);
  for (const int32_t token : answer.tokens) replay.accept(token);
  EXPECT_FALSE(replay.rejected());
}

// Allows one token alone; throws when told to.
class OneToken final : public TokenConstraint {
 public:
  explicit OneToken(int32_t token) : token_(token) {}

  void fill_mask(std::span<uint32_t> mask) override {
    if (token_ < 0) throw std::runtime_error("out of memory");
    std::fill(mask.begin(), mask.end(), 0u);
    mask[static_cast<size_t>(token_ / 32)] |= 1u << (token_ % 32);
  }

  void accept(int32_t) override {}

  bool ended() const override { return false; }

 private:
  int32_t token_;
};

TEST(EngineConstraint, LetsAConstraintEndTheTextBeforeItsMinimum) {
  SimulatedModelOptions options = small_model(16);
  options.eos_tokens = {9};
  SimulatedBench bench(options);
  Request request = greedy_request({1}, 40);
  request.min_tokens = 5;
  request.constraint = std::make_unique<OneToken>(9);
  const TestAnswer& answer = bench.run(std::move(request));
  EXPECT_EQ(answer.tokens, std::vector<int32_t>{9});
  EXPECT_EQ(answer.finished->reason, FinishReason::kStop);
}

TEST(EngineConstraint, FailsOnlyTheRequestWhoseConstraintThrows) {
  SimulatedBench bench(small_model(16));
  Request request = greedy_request({1}, 4);
  request.constraint = std::make_unique<OneToken>(-1);
  bench.submit(std::move(request));
  bench.submit(greedy_request({1}, 4));
  bench.drain();
  EXPECT_EQ(bench.answers[1].finished->reason, FinishReason::kError);
  EXPECT_EQ(bench.answers[1].finished->error, "the constraint failed: out of memory");
  EXPECT_EQ(bench.answers[2].finished->reason, FinishReason::kLength);
}

}  // namespace
}  // namespace quern
