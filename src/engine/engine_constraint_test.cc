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

  int64_t distance() const override { return 0; }
  int64_t distance_behind(int32_t) override { return 0; }
  void fill_closing_mask(std::span<uint32_t> mask) override { fill_mask(mask); }

  void accept(int32_t) override {}

  bool ended() const override { return false; }

 private:
  int32_t token_;
};

// Tokens that open and tokens that close; the answer may end where all is closed.
class Brackets final : public TokenConstraint {
 public:
  static constexpr int32_t kOpeners = 60;  // the rest of 64 tokens close

  explicit Brackets(int64_t open) : open_(open) {}

  void fill_mask(std::span<uint32_t> mask) override { fill(mask, 0, 64); }
  void fill_closing_mask(std::span<uint32_t> mask) override { fill(mask, kOpeners, 64); }

  int64_t distance() const override { return open_; }
  int64_t distance_behind(int32_t token) override { return open_ + (token < kOpeners ? 1 : -1); }

  void accept(int32_t token) override { open_ = distance_behind(token); }

  bool ended() const override { return open_ == 0; }

 private:
  static void fill(std::span<uint32_t> mask, int32_t begin, int32_t end) {
    std::fill(mask.begin(), mask.end(), 0u);
    for (int32_t token = begin; token < end; ++token)
      mask[static_cast<size_t>(token / 32)] |= 1u << (token % 32);
  }

  int64_t open_;
};

Request bracket_request(int64_t open, int64_t max_tokens, uint64_t seed) {
  Request request = greedy_request({1}, max_tokens);
  request.sampling.temperature = 1;
  request.sampling.seed = seed;
  request.constraint = std::make_unique<Brackets>(open);
  return request;
}

TEST(EngineConstraint, MeetsAConstraintBeforeTheLastToken) {
  SimulatedBench bench(small_model(16));
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const TestAnswer& answer = bench.run(bracket_request(3, 3 + static_cast<int64_t>(seed), seed));
    Brackets replay(3);
    for (const int32_t token : answer.tokens) replay.accept(token);
    EXPECT_EQ(replay.distance(), 0) << seed;
    if (answer.tokens.size() == static_cast<size_t>(3 + seed)) {
      EXPECT_EQ(answer.finished->reason, FinishReason::kLength) << seed;
    }
  }
}

TEST(EngineConstraint, StopsShortOfAConstraintThatCannotBeMet) {
  SimulatedBench bench(small_model(16));
  const TestAnswer& answer = bench.run(bracket_request(9, 8, 1));
  EXPECT_EQ(answer.tokens.size(), 8u);
  EXPECT_EQ(answer.finished->reason, FinishReason::kLength);
  const auto is_opener = [](int32_t token) { return token < Brackets::kOpeners; };
  EXPECT_TRUE(std::any_of(answer.tokens.begin(), answer.tokens.end(), is_opener));
}

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
