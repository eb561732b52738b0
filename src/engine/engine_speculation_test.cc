// Tokens guessed from the text: the same answers in fewer steps.
#include <memory>
#include <stdexcept>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

#include "engine/engine.h"
#include "engine/simulated_model.h"
#include "engine/test_bench.h"
#include "engine/test_logprobs.h"
#include "engine/test_request.h"

namespace quern {
namespace {

// An answer of two tokens at random, with everything that its choice may depend on.
Request repetitive_request(uint64_t seed) {
  Request request = greedy_request({1, 2, 3}, 90);
  request.sampling = {.temperature = 0.8f,
                      .top_p = 0.99f,
                      .repetition_penalty = 1.05f,
                      .frequency_penalty = 0.01f,
                      .seed = seed};
  request.logit_bias = {{7, 40}, {8, 37}};
  request.top_logprobs = 2;
  return request;
}

TEST(EngineSpeculation, GuessesTokensAndGivesTheSameInFewerSteps) {
  SimulatedBench plain(small_model(16)),
      guessing(small_model(16), nullptr, {.speculation = {.max_draft = 4}});
  for (uint64_t seed = 0; seed < 3; ++seed) {
    const TestAnswer expected = plain.run(repetitive_request(seed));
    const TestAnswer& answer = guessing.run(repetitive_request(seed));
    EXPECT_EQ(answer.tokens, expected.tokens);
    expect_equal(answer.logprobs, expected.logprobs);
    EXPECT_EQ(answer.finished->usage.completion_tokens, 90);
  }
  const EngineStats stats = guessing.engine.stats();
  EXPECT_GT(stats.accepted_tokens, 100);
  EXPECT_LE(stats.accepted_tokens, stats.draft_tokens);
  EXPECT_EQ(stats.steps + stats.accepted_tokens, plain.engine.stats().steps);
  EXPECT_EQ(stats.rows, plain.engine.stats().rows + stats.draft_tokens - stats.accepted_tokens);
}

TEST(EngineSpeculation, StopsGuessingWhereARowCostsAsMuchAsAStep) {
  SimulatedModelOptions dear = small_model(16), cheap = small_model(16);
  dear.cost = {.step_ns = 0, .row_ns = 100};
  cheap.cost = {.step_ns = 100, .row_ns = 1};
  const EngineOptions options{.speculation = {.max_draft = 4}};
  SimulatedBench with_dear_rows(dear, nullptr, options), with_cheap_rows(cheap, nullptr, options);
  for (uint64_t seed = 0; seed < 20; ++seed) {
    with_dear_rows.run(repetitive_request(seed));
    with_cheap_rows.run(repetitive_request(seed));
  }
  EXPECT_LT(with_dear_rows.engine.stats().draft_tokens, 200);
  EXPECT_GT(with_cheap_rows.engine.stats().draft_tokens, 1000);
  EXPECT_LT(with_cheap_rows.clock.now_ns(), 20 * 90 * 101 * 3 / 4);
}

TEST(EngineSpeculation, GuessesNothingForAConstraint) {
  SimulatedBench bench(small_model(16), nullptr, {.speculation = {.max_draft = 4, .min_ngram = 1}});
  Request request = repetitive_request(1);
  request.constraint = std::make_unique<HashConstraint>(9, 64, 60);
  EXPECT_EQ(bench.run(std::move(request)).tokens.size(), 60u);
  EXPECT_EQ(bench.engine.stats().draft_tokens, 0);
}

TEST(EngineSpeculation, EndsAtOnceWhenCancelledAmongGuessedTokens) {
  SimulatedBench bench(small_model(16), nullptr, {.speculation = {.max_draft = 4}});
  Request request = greedy_request({1, 2}, 90);
  request.logit_bias = {{7, 50}};
  const RequestId id = bench.submit(std::move(request));
  int tokens = 0;
  while (bench.engine.step([&](const Event& event) {
    if (std::holds_alternative<TokenEvent>(event) && ++tokens == 20) bench.engine.cancel(id);
  })) {
  }
  EXPECT_EQ(tokens, 20);
  EXPECT_GT(bench.engine.stats().accepted_tokens, 0);
}

TEST(EngineSpeculation, FailsNobodyForAGuessThatTheModelThrowsOn) {
  SimulatedModelOptions options = small_model(16);
  const auto request = [] {
    Request r = greedy_request({1, 2}, 40);
    r.sampling.temperature = 1;
    r.logit_bias = {{7, 40}, {8, 39}};
    return r;
  };
  const std::vector<int32_t> expected = SimulatedBench(options).run(request()).tokens;
  // A model that fails on any batch of more than two rows: only guesses make one.
  class Narrow final : public Model {
   public:
    explicit Narrow(Model& model) : model_(model) {}

    const ModelSpec& spec() const override { return model_.spec(); }

    const ModelLimits& limits() const override { return model_.limits(); }

    void forward(const Batch& batch, Tensor logits) override {
      if (batch.tokens.size() > 2) throw std::runtime_error("too wide");
      model_.forward(batch, logits);
    }

   private:
    Model& model_;
  };
  SimulatedModel inner(options, nullptr);
  Narrow model(inner);
  const ManualClock clock;
  Engine engine(model, nullptr, {.speculation = {.max_draft = 4}}, clock);
  ASSERT_TRUE(engine.submit(request()));
  std::vector<int32_t> tokens;
  while (engine.step([&](const Event& event) {
    if (const auto* token = std::get_if<TokenEvent>(&event)) tokens.push_back(token->token);
  })) {
  }
  EXPECT_EQ(tokens, expected);
  EXPECT_GT(engine.stats().draft_tokens, 0);
}

}  // namespace
}  // namespace quern
