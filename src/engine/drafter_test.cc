#include "engine/drafter.h"

#include <optional>

#include <gtest/gtest.h>

#include "engine/engine.h"
#include "engine/simulated_model.h"
#include "engine/test_bench.h"

namespace quern {
namespace {

constexpr int64_t kAnswer = 80;

SimulatedModelOptions model_options(uint64_t seed) {
  SimulatedModelOptions options;
  options.seed = seed;
  options.max_context = 512;
  options.limits = {.max_batch_tokens = 64, .max_logit_rows = 40, .kv_blocks = 64};
  options.cost = {.step_ns = 100, .row_ns = 1};
  return options;
}

Request request_of(std::vector<int32_t> prompt, float temperature) {
  Request request;
  request.prompt = std::move(prompt);
  request.max_tokens = kAnswer;
  request.sampling.temperature = temperature;
  request.sampling.seed = 5;
  return request;
}

// An engine with a draft model.
struct Bench : EngineDriver {
  Bench(SimulatedModelOptions options, const std::optional<SimulatedModelOptions>& draft_options)
      : EngineDriver(engine),
        model(std::move(options), &clock),
        engine(
            model, nullptr, {.speculation = {.max_draft = 4}}, clock, make_draft(draft_options)) {}

  ManualClock clock;
  SimulatedModel model;
  std::optional<SimulatedModel> draft_model;
  Engine engine;

 private:
  Model* make_draft(const std::optional<SimulatedModelOptions>& options) {
    return options ? &draft_model.emplace(*options, &clock) : nullptr;
  }
};

SimulatedModelOptions cheap(uint64_t seed) {
  SimulatedModelOptions options = model_options(seed);
  options.cost = {.step_ns = 2, .row_ns = 0};
  return options;
}

TEST(Drafter, GuessesAllWhereBothModelsAreTheSame) {
  for (const float temperature : {0.0f, 1.0f}) {
    Bench plain(model_options(1), std::nullopt), guessing(model_options(1), cheap(1));
    EXPECT_EQ(guessing.run(request_of({1, 2, 3}, temperature)).tokens,
              plain.run(request_of({1, 2, 3}, temperature)).tokens);
    const EngineStats stats = guessing.engine.stats();
    EXPECT_EQ(stats.accepted_tokens, stats.draft_tokens);
    EXPECT_EQ(stats.steps + stats.accepted_tokens, kAnswer);
    EXPECT_LT(stats.steps, kAnswer / 3);
    EXPECT_LT(guessing.clock.now_ns(), plain.clock.now_ns() / 2);
  }
}

TEST(Drafter, ChangesNoTokenWhereTheModelsDisagree) {
  Bench plain(model_options(1), std::nullopt), guessing(model_options(1), cheap(2));
  EXPECT_EQ(guessing.run(request_of({9, 8, 7}, 0.7f)).tokens,
            plain.run(request_of({9, 8, 7}, 0.7f)).tokens);
  const EngineStats stats = guessing.engine.stats();
  EXPECT_GT(stats.draft_tokens, 0);
  EXPECT_LT(stats.accepted_tokens, stats.draft_tokens / 4);
}

TEST(Drafter, StopsWhereItDoesNotPay) {
  SimulatedModelOptions dear = model_options(1);
  dear.cost = {.step_ns = 100, .row_ns = 0};
  Bench guessing(model_options(1), dear);
  for (int i = 0; i < 10; ++i) guessing.run(request_of({1, i}, 1));
  EXPECT_LT(guessing.engine.stats().draft_tokens, 10 * kAnswer / 8);
}

TEST(Drafter, ReadsALongPromptOverSeveralSteps) {
  std::vector<int32_t> prompt;
  for (int i = 0; i < 200; ++i) prompt.push_back(1 + i % 50);
  SimulatedModelOptions narrow = cheap(1);
  narrow.limits.max_batch_tokens = 16;
  Bench plain(model_options(1), std::nullopt), guessing(model_options(1), narrow);
  EXPECT_EQ(guessing.run(request_of(prompt, 1)).tokens, plain.run(request_of(prompt, 1)).tokens);
  EXPECT_GT(guessing.engine.stats().accepted_tokens, kAnswer / 2);
  EXPECT_EQ(guessing.draft_model->most_rows(), 16);
}

TEST(Drafter, TakesAPrefixThatItHasReadFromItsCache) {
  std::vector<int32_t> prompt(128, 3);
  SimulatedModelOptions by_row = cheap(1);
  by_row.cost.row_ns = 1;
  Bench guessing(model_options(1), by_row);
  guessing.run(request_of(prompt, 0));
  const int64_t before = guessing.engine.stats().draft_ns;
  guessing.run(request_of(prompt, 0));
  const int64_t second = guessing.engine.stats().draft_ns - before;
  EXPECT_LT(second, before - 64);  // a whole block and more
}

TEST(Drafter, ServesManySequencesAndKeepsNothingOfThem) {
  Bench plain(model_options(1), std::nullopt), guessing(model_options(1), cheap(1));
  for (Bench* bench : {&plain, &guessing}) {
    for (int i = 0; i < 8; ++i) bench->submit(request_of({i, 2, i}, 1));
    bench->drain();
  }
  for (const auto& [id, answer] : plain.answers) {
    EXPECT_EQ(guessing.answers[id].tokens, answer.tokens);
  }
  EXPECT_GT(guessing.engine.stats().accepted_tokens, 100);
}

TEST(Drafter, GuessesNothingWithoutFreeBlocks) {
  SimulatedModelOptions small = cheap(1);
  small.limits.kv_blocks = 1;
  std::vector<int32_t> prompt(2 * kKvBlockTokens, 4);
  Bench plain(model_options(1), std::nullopt), guessing(model_options(1), small);
  EXPECT_EQ(guessing.run(request_of(prompt, 1)).tokens, plain.run(request_of(prompt, 1)).tokens);
  EXPECT_EQ(guessing.engine.stats().draft_tokens, 0);
}

TEST(Drafter, AFailingDraftModelCostsGuessesAlone) {
  for (const bool throws : {false, true}) {
    SimulatedModelOptions broken = cheap(1);
    (throws ? broken.throw_token : broken.nan_token) = 2;
    Bench plain(model_options(1), std::nullopt), guessing(model_options(1), broken);
    EXPECT_EQ(guessing.run(request_of({1, 2, 3}, 1)).tokens,
              plain.run(request_of({1, 2, 3}, 1)).tokens);
    EXPECT_EQ(guessing.engine.stats().draft_tokens, 0);
  }
}

}  // namespace
}  // namespace quern
