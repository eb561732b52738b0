// Log probabilities of answers and of prompts.
#include <variant>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/engine.h"
#include "engine/simulated_model.h"
#include "engine/test_bench.h"
#include "engine/test_logprobs.h"

namespace quern {
namespace {

using testing::HasSubstr;

TEST(EngineLogprobs, ReportsLogprobsWhenAsked) {
  SimulatedBench bench(small_model(16));
  Request request = greedy_request({1}, 3);
  request.top_logprobs = 2;
  bench.submit(std::move(request));
  int tokens = 0;
  while (bench.engine.step([&](const Event& event) {
    const auto* token = std::get_if<TokenEvent>(&event);
    if (token == nullptr) return;
    ASSERT_TRUE(token->logprobs);
    ASSERT_EQ(token->logprobs->top.size(), 2u);
    EXPECT_EQ(token->logprobs->top[0].token, token->token);
    EXPECT_EQ(token->logprobs->top[0].logprob, token->logprobs->chosen);
    ++tokens;
  })) {
  }
  EXPECT_EQ(tokens, 3);
}

TEST(EngineLogprobs, GivesThePromptsLogprobsInWhateverChunks) {
  std::vector<int32_t> prompt;
  for (int32_t i = 0; i < 45; ++i) prompt.push_back(i * 7 % 64);
  const std::vector<Logprobs> expected = logprobs_one_by_one(prompt, 3);
  for (const int64_t logit_rows : {1, 3, 64}) {
    SimulatedModelOptions options = small_model(16);
    options.limits.max_logit_rows = logit_rows;
    SimulatedBench bench(options);
    Request request = greedy_request(prompt, 4);
    request.prompt_logprobs = 3;
    const std::vector<int32_t> plain =
        SimulatedBench(options).run(greedy_request(prompt, 4)).tokens;
    const TestAnswer& answer = bench.run(std::move(request));
    ASSERT_TRUE(answer.prompt_logprobs);
    expect_equal(*answer.prompt_logprobs, expected);
    EXPECT_EQ(answer.tokens, plain);
  }
}

TEST(EngineLogprobs, GivesThePromptsLogprobsOnceHoweverOftenItWasPreempted) {
  SimulatedModelOptions options = small_model(4);
  options.limits.max_logit_rows = 2;
  SimulatedBench bench(options);
  std::vector<int32_t> prompt(50, 5);
  for (const int32_t first : {1, 2}) {
    prompt[0] = first;
    Request request = greedy_request(prompt, 30);
    request.prompt_logprobs = 0;
    bench.submit(std::move(request));
  }
  bench.drain();
  for (const RequestId id : {1u, 2u}) {
    ASSERT_TRUE(bench.answers[id].prompt_logprobs);
    prompt[0] = static_cast<int32_t>(id);
    expect_equal(*bench.answers[id].prompt_logprobs, logprobs_one_by_one(prompt, 0));
  }
}

TEST(EngineLogprobs, GivesAnEmptyListOfLogprobsForAPromptOfOneToken) {
  SimulatedBench bench(small_model(16));
  Request request = greedy_request({1}, 2);
  request.prompt_logprobs = 0;
  const TestAnswer& answer = bench.run(std::move(request));
  ASSERT_TRUE(answer.prompt_logprobs);
  EXPECT_TRUE(answer.prompt_logprobs->empty());
}

TEST(EngineLogprobs, FailsAPromptWhoseLogprobsAreNotFinite) {
  SimulatedModelOptions options = small_model(16);
  options.nan_token = 63;
  SimulatedBench bench(options);
  Request request = greedy_request({1, 2, 63, 4}, 2);
  request.prompt_logprobs = 0;
  const TestAnswer& answer = bench.run(std::move(request));
  EXPECT_EQ(answer.finished->reason, FinishReason::kError);
  EXPECT_THAT(answer.finished->error, HasSubstr("position 2 are not finite"));
  EXPECT_FALSE(answer.prompt_logprobs);
}

}  // namespace
}  // namespace quern
