#include "engine/generate.h"

#include <gtest/gtest.h>

#include "engine/simulated_model.h"
#include "engine/test_tokenizer.h"

namespace quern {
namespace {

SimulatedModelOptions model_options() {
  SimulatedModelOptions options;
  options.limits = {.max_batch_tokens = 32, .max_logit_rows = 4, .kv_blocks = 8};
  return options;
}

Request request(int32_t token, int64_t max_tokens) {
  Request r;
  r.prompt = {token};
  r.max_tokens = max_tokens;
  r.sampling.temperature = 0;
  return r;
}

std::vector<Request> list(Request a, Request b) {
  std::vector<Request> requests;
  requests.push_back(std::move(a));
  requests.push_back(std::move(b));
  return requests;
}

class GenerateTest : public testing::Test {
 protected:
  std::unique_ptr<Tokenizer> tokenizer_ = make_test_tokenizer();
  ManualClock clock_;
  SimulatedModel model_{model_options(), &clock_};
  Engine engine_{model_, tokenizer_.get(), {.max_waiting = 8}, clock_};
};

TEST_F(GenerateTest, StreamsTheTextThatItReturns) {
  std::string streamed;
  const Result<Completion> completion =
      generate(engine_, request(3, 20), [&](size_t index, const TokenEvent& event) {
        EXPECT_EQ(index, 0u);
        streamed += event.text;
        return GenerateFlow::kContinue;
      });
  ASSERT_TRUE(completion);
  EXPECT_EQ(completion->text, streamed);
  EXPECT_FALSE(streamed.empty());
  EXPECT_EQ(completion->tokens.size(), 20u);
  EXPECT_EQ(completion->usage.completion_tokens, 20);
  EXPECT_EQ(completion->reason, FinishReason::kLength);
}

TEST_F(GenerateTest, CancelsWhenTheCallbackSaysSo) {
  const Result<Completion> completion =
      generate(engine_, request(3, 20), [n = 0](size_t, const TokenEvent&) mutable {
        return ++n < 5 ? GenerateFlow::kContinue : GenerateFlow::kCancel;
      });
  ASSERT_TRUE(completion);
  EXPECT_EQ(completion->reason, FinishReason::kCancelled);
  EXPECT_EQ(completion->tokens.size(), 5u);
}

TEST_F(GenerateTest, KeepsTheOrderOfItsRequests) {
  const auto go_on = [](size_t, const TokenEvent&) { return GenerateFlow::kContinue; };
  std::vector<Request> requests = list(request(1, 9), request(2, 3));
  requests.push_back(request(3, 6));
  const auto all = generate_all(engine_, std::move(requests), go_on);
  ASSERT_TRUE(all);
  ASSERT_EQ(all->size(), 3u);
  EXPECT_EQ((*all)[0].tokens.size(), 9u);
  EXPECT_EQ((*all)[1].tokens.size(), 3u);
  EXPECT_EQ((*all)[2].tokens.size(), 6u);
  const Result<Completion> again = generate(engine_, request(2, 3), go_on);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->tokens, (*all)[1].tokens);
}

TEST_F(GenerateTest, RunsNoneWhenOneIsRefused) {
  int tokens = 0;
  const auto count = [&](size_t, const TokenEvent&) {
    ++tokens;
    return GenerateFlow::kContinue;
  };
  const auto all = generate_all(engine_, list(request(1, 9), request(2, 0)), count);
  ASSERT_FALSE(all);
  EXPECT_EQ(all.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(tokens, 0);
  EXPECT_TRUE(engine_.idle());
}

TEST_F(GenerateTest, ReturnsTheLogprobsOfThePromptWhenAsked) {
  Request wanting = request(1, 2);
  wanting.prompt = {1, 2, 3};
  wanting.prompt_logprobs = 2;
  const auto go_on = [](size_t, const TokenEvent&) { return GenerateFlow::kContinue; };
  const Result<Completion> completion = generate(engine_, std::move(wanting), go_on);
  ASSERT_TRUE(completion);
  ASSERT_EQ(completion->prompt_logprobs.size(), 2u);
  EXPECT_EQ(completion->prompt_logprobs[0].top.size(), 2u);
}

TEST_F(GenerateTest, HasNothingToDoWithoutRequests) {
  const auto go_on = [](size_t, const TokenEvent&) { return GenerateFlow::kContinue; };
  const auto all = generate_all(engine_, {}, go_on);
  ASSERT_TRUE(all);
  EXPECT_TRUE(all->empty());
}

}  // namespace
}  // namespace quern
