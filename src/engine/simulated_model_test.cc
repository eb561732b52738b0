#include "engine/simulated_model.h"

#include <cmath>

#include <gtest/gtest.h>

namespace quern {
namespace {

SimulatedModelOptions options() {
  SimulatedModelOptions options;
  options.limits = {.max_batch_tokens = 128, .max_logit_rows = 4, .kv_blocks = 8};
  return options;
}

// One sequence's rows, run as a batch of their own.
std::vector<float> run(SimulatedModel& model,
                       const std::vector<int32_t>& tokens,
                       int32_t first_position,
                       const std::vector<int32_t>& block_table) {
  std::vector<int32_t> positions;
  for (size_t i = 0; i < tokens.size(); ++i) {
    positions.push_back(first_position + static_cast<int32_t>(i));
  }
  const SequenceSpan span{.row_begin = 0,
                          .row_count = static_cast<int64_t>(tokens.size()),
                          .position_begin = first_position,
                          .block_table = block_table};
  const std::vector<int32_t> logit_rows = {static_cast<int32_t>(tokens.size()) - 1};
  FloatMatrix logits(1, model.spec().vocabulary);
  model.forward({tokens, positions, {&span, 1}, logit_rows}, logits.tensor());
  return {logits.data(), logits.data() + logits.columns()};
}

TEST(SimulatedModel, IsTheSameInOnePieceOrInChunksInAnyBlocks) {
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < 40; ++i) tokens.push_back(i % 7);
  SimulatedModel model(options(), nullptr);
  const std::vector<float> whole = run(model, tokens, 0, {0, 1});
  run(model, {tokens.begin(), tokens.begin() + 35}, 0, {6, 3});
  EXPECT_EQ(run(model, {tokens.begin() + 35, tokens.end()}, 35, {6, 3}), whole);
}

TEST(SimulatedModel, DependsOnEveryTokenBefore) {
  SimulatedModel model(options(), nullptr);
  const std::vector<float> logits = run(model, {1, 2, 3}, 0, {0});
  EXPECT_NE(run(model, {2, 2, 3}, 0, {0}), logits);
  EXPECT_NE(run(model, {1, 3, 3}, 0, {0}), logits);
  EXPECT_NE(run(model, {1, 2}, 0, {0}), logits);
}

TEST(SimulatedModel, ShowsABlockThatWasOverwrittenOrIsWrong) {
  SimulatedModel model(options(), nullptr);
  run(model, {1, 2, 3}, 0, {0});
  const std::vector<float> right = run(model, {4}, 3, {0});
  run(model, {9}, 0, {0});  // another sequence writes into the same block
  EXPECT_NE(run(model, {4}, 3, {0}), right);
  EXPECT_NE(run(model, {4}, 3, {1}), right);
}

TEST(SimulatedModel, MovesItsClockByTheCostOfAStep) {
  SimulatedModelOptions costly = options();
  costly.cost = {.step_ns = 1000, .row_ns = 10, .position_ns = 1};
  ManualClock clock;
  SimulatedModel model(costly, &clock);
  run(model, {1, 2, 3}, 0, {0});
  EXPECT_EQ(clock.now_ns(), 1000 + 30 + 3);
  run(model, {4}, 3, {0});
  EXPECT_EQ(clock.now_ns(), 1033 + 1000 + 10 + 4);
}

TEST(SimulatedModel, FailsOnTheTokensThatItIsToldToFailOn) {
  SimulatedModelOptions failing = options();
  failing.nan_token = 5;
  failing.throw_token = 6;
  SimulatedModel model(failing, nullptr);
  const std::vector<float> logits = run(model, {5, 1}, 0, {0});
  EXPECT_TRUE(std::any_of(logits.begin(), logits.end(), [](float x) { return std::isnan(x); }));
  EXPECT_THROW(run(model, {1, 6}, 0, {0}), std::runtime_error);
}

}  // namespace
}  // namespace quern
