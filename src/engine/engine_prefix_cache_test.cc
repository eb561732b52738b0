// Prompts whose beginning another request has computed.
#include <vector>

#include <gtest/gtest.h>

#include "engine/engine.h"
#include "engine/simulated_model.h"
#include "engine/test_bench.h"
#include "engine/test_logprobs.h"

namespace quern {
namespace {

std::vector<int32_t> long_prompt(int64_t tokens) {
  std::vector<int32_t> prompt;
  for (int64_t i = 0; i < tokens; ++i) prompt.push_back(static_cast<int32_t>(i * i % 61));
  return prompt;
}

TEST(EnginePrefixCache, TakesPrefixesFromTheCacheAndGivesTheSameTokens) {
  SimulatedBench bench(small_model(16));
  const std::vector<int32_t> prompt = long_prompt(2 * kKvBlockTokens + 9);
  const TestAnswer first = bench.run(greedy_request(prompt, 40));
  EXPECT_EQ(first.finished->usage.cached_tokens, 0);
  const TestAnswer second = bench.run(greedy_request(prompt, 40));
  EXPECT_EQ(second.tokens, first.tokens);
  EXPECT_EQ(second.finished->usage.cached_tokens, 2 * kKvBlockTokens);
  EXPECT_EQ(second.finished->usage.prompt_tokens, 2 * kKvBlockTokens + 9);

  std::vector<int32_t> turn = prompt;  // a next turn finds the answer cached as well
  turn.insert(turn.end(), first.tokens.begin(), first.tokens.end());
  const TestAnswer third = bench.run(greedy_request(turn, 5));
  EXPECT_EQ(third.finished->usage.cached_tokens, 3 * kKvBlockTokens);
  EXPECT_EQ(third.tokens, SimulatedBench(small_model(16)).run(greedy_request(turn, 5)).tokens);
  EXPECT_EQ(bench.engine.stats().prefix_queries, 73 + 73 + 113);
  EXPECT_EQ(bench.engine.stats().prefix_hits, 64 + 96);
  EXPECT_EQ(bench.engine.stats().prompt_tokens, 73 + 73 + 113);
}

TEST(EnginePrefixCache, ComputesAtLeastTheLastTokenOfAPrompt) {
  SimulatedBench bench(small_model(16));
  const std::vector<int32_t> prompt = long_prompt(2 * kKvBlockTokens);
  const TestAnswer first = bench.run(greedy_request(prompt, 3));
  const TestAnswer second = bench.run(greedy_request(prompt, 3));
  EXPECT_EQ(second.tokens, first.tokens);
  EXPECT_EQ(second.finished->usage.cached_tokens, kKvBlockTokens);
}

TEST(EnginePrefixCache, SharesNoPrefixAcrossSalts) {
  SimulatedBench bench(small_model(16));
  const std::vector<int32_t> prompt = long_prompt(50);
  bench.run(greedy_request(prompt, 3));
  Request stranger = greedy_request(prompt, 3);
  stranger.cache_salt = 1;
  EXPECT_EQ(bench.run(std::move(stranger)).finished->usage.cached_tokens, 0);
}

TEST(EnginePrefixCache, TakesNothingFromTheCacheWhenThePromptsLogprobsAreWanted) {
  SimulatedBench bench(small_model(16));
  const std::vector<int32_t> prompt = long_prompt(50);
  bench.run(greedy_request(prompt, 3));
  Request request = greedy_request(prompt, 3);
  request.prompt_logprobs = 0;
  const TestAnswer& answer = bench.run(std::move(request));
  EXPECT_EQ(answer.finished->usage.cached_tokens, 0);
  expect_equal(*answer.prompt_logprobs, logprobs_one_by_one(prompt, 0));
}

TEST(EnginePrefixCache, CountsNoTokenAsCachedThatItComputedForTheRequestBefore) {
  SimulatedBench bench(small_model(6));
  for (int32_t i = 0; i < 3; ++i) {
    std::vector<int32_t> prompt = long_prompt(50);
    prompt[0] = i;
    bench.submit(greedy_request(prompt, 100));
  }
  bench.drain();
  const EngineStats stats = bench.engine.stats();
  ASSERT_GT(stats.preemptions, 0);
  EXPECT_EQ(stats.prefix_queries, 150);
  EXPECT_EQ(stats.prefix_hits, 0);
  for (const auto& [id, answer] : bench.answers) {
    EXPECT_EQ(answer.finished->usage.cached_tokens, 0);
    EXPECT_EQ(answer.finished->usage.prompt_tokens, 50);
  }
}

TEST(EnginePrefixCache, SharesWhatAnotherAnswerToThePromptComputesMeanwhile) {
  SimulatedModelOptions options = small_model(40);
  const std::vector<int32_t> prompt = long_prompt(200);
  SimulatedBench bench(options);
  for (uint64_t stream = 0; stream < 4; ++stream) {
    Request request = greedy_request(prompt, 5);
    request.sampling = {.temperature = 1, .seed = 3, .stream = stream};
    bench.submit(std::move(request));
  }
  bench.drain();
  // Together they compute the prompt once, and of each answer at most a chunk or two beside it.
  EXPECT_LT(bench.engine.stats().rows, 200 + 3 * 64 + 4 * 5);
  for (uint64_t stream = 0; stream < 4; ++stream) {
    Request request = greedy_request(prompt, 5);
    request.sampling = {.temperature = 1, .seed = 3, .stream = stream};
    EXPECT_EQ(bench.answers[stream + 1].tokens,
              SimulatedBench(options).run(std::move(request)).tokens);
  }
}

TEST(EnginePrefixCache, CachesNothingOfARequestThatFailed) {
  SimulatedModelOptions options = small_model(16);
  options.nan_token = 63;
  SimulatedBench bench(options);
  std::vector<int32_t> prompt = long_prompt(40);
  prompt[5] = 63;
  EXPECT_EQ(bench.run(greedy_request(prompt, 3)).finished->reason, FinishReason::kError);
  EXPECT_EQ(bench.engine.stats().cached_blocks, 0);
  EXPECT_EQ(bench.run(greedy_request(prompt, 3)).finished->usage.cached_tokens, 0);
}

TEST(EnginePrefixCache, CachesNothingWhenToldNotTo) {
  SimulatedBench bench(small_model(16), nullptr, {.prefix_caching = PrefixCaching::kOff});
  const std::vector<int32_t> prompt = long_prompt(50);
  bench.run(greedy_request(prompt, 3));
  EXPECT_EQ(bench.run(greedy_request(prompt, 3)).finished->usage.cached_tokens, 0);
  EXPECT_EQ(bench.engine.stats().cached_blocks, 0);
}

}  // namespace
}  // namespace quern
