#include "engine/engine.h"

#include <map>
#include <string>
#include <variant>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/simulated_model.h"
#include "engine/test_bench.h"
#include "engine/test_request.h"
#include "engine/test_tokenizer.h"

namespace quern {
namespace {

using testing::HasSubstr;

TEST(Engine, RunsARequestToItsMaximum) {
  SimulatedBench bench(small_model(16));
  const TestAnswer& answer = bench.run(greedy_request({1, 2, 3}, 10));
  EXPECT_EQ(answer.tokens.size(), 10u);
  ASSERT_TRUE(answer.finished);
  EXPECT_EQ(answer.finished->reason, FinishReason::kLength);
  EXPECT_EQ(answer.finished->usage.prompt_tokens, 3);
  EXPECT_EQ(answer.finished->usage.completion_tokens, 10);
}

TEST(Engine, StopsAtTheModelsEndOfTextUnlessToldToIgnoreIt) {
  SimulatedBench plain(small_model(16));
  const std::vector<int32_t> tokens = plain.run(greedy_request({1}, 40)).tokens;
  SimulatedModelOptions options = small_model(16);
  options.eos_tokens = {tokens[5]};
  size_t first = 0;
  while (tokens[first] != tokens[5]) ++first;

  SimulatedBench bench(options);
  const TestAnswer& answer = bench.run(greedy_request({1}, 40));
  EXPECT_EQ(answer.finished->reason, FinishReason::kStop);
  EXPECT_EQ(answer.tokens,
            std::vector<int32_t>(tokens.begin(), tokens.begin() + static_cast<long>(first) + 1));

  Request ignoring = greedy_request({1}, 40);
  ignoring.eos = EosTokens::kIgnore;
  EXPECT_EQ(bench.run(copy_of(ignoring)).tokens, tokens);

  Request own = copy_of(ignoring);  // a stop token of the request counts even so
  own.stop_tokens = {tokens[5]};
  EXPECT_EQ(bench.run(std::move(own)).tokens.size(), first + 1);

  Request longer = greedy_request({1}, 40);
  longer.min_tokens = 20;
  const TestAnswer& late = bench.run(std::move(longer));
  EXPECT_GE(late.tokens.size(), 20u);
  for (size_t i = 0; i < 20; ++i) EXPECT_NE(late.tokens[i], tokens[5]);
}

TEST(Engine, EndsTheTextBeforeAStopStringWhateverTokensSpellIt) {
  const auto tokenizer = make_test_tokenizer();
  SimulatedBench bench(small_model(16), tokenizer.get());
  const TestAnswer whole = bench.run(greedy_request({1, 2}, 60));
  ASSERT_GT(whole.text.size(), 40u);
  for (size_t begin = 1; begin + 4 < whole.text.size(); begin += 3) {
    const std::string stop = whole.text.substr(begin, 4);
    if (!stop.empty() && (stop[0] & 0xC0) == 0x80) continue;  // begins within a code point
    Request request = greedy_request({1, 2}, 60);
    request.stop = {stop};
    const Result<RequestId> id = bench.engine.submit(std::move(request));
    if (!id) continue;  // the cut ended within a code point
    bench.drain();
    const TestAnswer& answer = bench.answers[*id];
    EXPECT_EQ(answer.text, whole.text.substr(0, whole.text.find(stop))) << "stop " << stop;
    EXPECT_EQ(answer.finished->reason, FinishReason::kStop);
    EXPECT_EQ(answer.finished->stop, stop);
    EXPECT_LE(answer.tokens.size(), whole.tokens.size());
  }
}

TEST(Engine, GivesOutWhatWasHeldBackWhenTheLengthEndsTheText) {
  const auto tokenizer = make_test_tokenizer();
  SimulatedBench bench(small_model(16), tokenizer.get());
  const TestAnswer whole = bench.run(greedy_request({7}, 12));
  Request request = greedy_request({7}, 12);
  request.stop = {whole.text.substr(whole.text.size() - 1) + "never"};
  const TestAnswer& answer = bench.run(std::move(request));
  EXPECT_EQ(answer.text, whole.text);
  EXPECT_EQ(answer.finished->reason, FinishReason::kLength);
}

TEST(Engine, LetsNoStopStringEndTheTextBeforeItsMinimum) {
  const auto tokenizer = make_test_tokenizer();
  SimulatedBench bench(small_model(16), tokenizer.get());
  const TestAnswer whole = bench.run(greedy_request({7}, 30));
  Request request = greedy_request({7}, 30);
  request.stop = {whole.text.substr(0, 1)};
  request.min_tokens = 12;
  const TestAnswer& answer = bench.run(std::move(request));
  EXPECT_GE(answer.tokens.size(), 12u);
  EXPECT_EQ(whole.text.substr(0, answer.text.size()), answer.text);
}

TEST(Engine, RefusesStopStringsWithoutATokenizer) {
  SimulatedBench bench(small_model(16));
  Request request = greedy_request({1}, 4);
  request.stop = {"x"};
  const Result<RequestId> id = bench.engine.submit(std::move(request));
  ASSERT_FALSE(id);
  EXPECT_EQ(id.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(id.error().message, HasSubstr("without a tokenizer"));
  EXPECT_EQ(bench.engine.stats().refused, 1);
}

TEST(Engine, RefusesWhatCanNeverFit) {
  SimulatedBench bench(small_model(2));
  EXPECT_EQ(bench.engine.max_request_tokens(), 2 * kKvBlockTokens);
  const Result<RequestId> id = bench.engine.submit(greedy_request({1}, 2 * kKvBlockTokens));
  ASSERT_FALSE(id);
  EXPECT_THAT(id.error().message, HasSubstr("the key-value cache of 64 tokens"));
  EXPECT_EQ(bench.run(greedy_request({1}, 2 * kKvBlockTokens - 1)).tokens.size(), 63u);
}

TEST(Engine, RefusesMoreThanTheQueueHolds) {
  SimulatedBench bench(small_model(16), nullptr, {.max_waiting = 2});
  bench.submit(greedy_request({1}, 4));
  bench.submit(greedy_request({1}, 4));
  const Result<RequestId> id = bench.engine.submit(greedy_request({1}, 4));
  ASSERT_FALSE(id);
  EXPECT_EQ(id.error().code, ErrorCode::kExhausted);
  EXPECT_FALSE(bench.engine.submit(greedy_request({}, 4)));
  const EngineStats stats = bench.engine.stats();
  EXPECT_EQ(stats.refused, 2);
  EXPECT_EQ(stats.refused_requests, 1);
  EXPECT_EQ(stats.refused_invalid, 1);
  EXPECT_EQ(stats.waiting_tokens, 2);
  bench.drain();
  EXPECT_EQ(bench.submit(greedy_request({1}, 4)), 3u);  // a refusal takes no number
  bench.drain();
}

TEST(Engine, CancelsAtTheNextStepAndIgnoresUnknownIds) {
  SimulatedBench bench(small_model(16));
  const RequestId running = bench.submit(greedy_request({1}, 50));
  const RequestId other = bench.submit(greedy_request({2}, 5));
  bench.step();
  bench.engine.cancel(running);
  bench.engine.cancel(running);
  bench.engine.cancel(999);
  bench.drain();
  EXPECT_EQ(bench.answers[running].finished->reason, FinishReason::kCancelled);
  EXPECT_EQ(bench.answers[running].finished->usage.completion_tokens, 1);
  EXPECT_EQ(bench.answers[other].finished->reason, FinishReason::kLength);
  bench.engine.cancel(running);
  EXPECT_FALSE(bench.step());
}

TEST(Engine, AllowsCancellingAndSubmittingFromTheSink) {
  SimulatedBench bench(small_model(16));
  const RequestId first = bench.submit(greedy_request({1}, 50));
  std::map<RequestId, int> tokens;
  bool submitted = false;
  const auto sink = [&](const Event& event) {
    const auto* token = std::get_if<TokenEvent>(&event);
    if (token == nullptr) return;
    ++tokens[token->request];
    if (token->request == first && tokens[first] == 3) bench.engine.cancel(first);
    if (!submitted) submitted = bench.engine.submit(greedy_request({2}, 4)).has_value();
  };
  while (bench.engine.step(sink)) {
  }
  EXPECT_EQ(tokens[first], 3);
  EXPECT_EQ(tokens[first + 1], 4);
}

TEST(Engine, FailsOnlyTheRequestWhoseLogitsAreNotFinite) {
  SimulatedModelOptions options = small_model(16);
  const std::vector<int32_t> solo = SimulatedBench(options).run(greedy_request({1, 2}, 20)).tokens;
  options.nan_token = 63;
  SimulatedBench bench(options);
  const RequestId good = bench.submit(greedy_request({1, 2}, 20));
  const RequestId bad = bench.submit(greedy_request({1, 63}, 20));
  bench.drain();
  EXPECT_EQ(bench.answers[bad].finished->reason, FinishReason::kError);
  EXPECT_THAT(bench.answers[bad].finished->error, HasSubstr("position 1 are not finite"));
  EXPECT_TRUE(bench.answers[bad].tokens.empty());
  const std::vector<int32_t>& tokens = bench.answers[good].tokens;
  EXPECT_EQ(tokens,
            std::vector<int32_t>(solo.begin(), solo.begin() + static_cast<long>(tokens.size())));
  EXPECT_FALSE(tokens.empty());
}

TEST(Engine, FailsOnlyTheRequestThatTheModelThrowsOn) {
  SimulatedModelOptions options = small_model(16);
  options.throw_token = 63;
  SimulatedBench alone(options), bench(options);
  const TestAnswer solo = alone.run(greedy_request({1, 2}, 3));
  ASSERT_EQ(solo.finished->reason, FinishReason::kLength);
  bench.submit(greedy_request({63, 1}, 20));
  bench.submit(greedy_request({1, 2}, 3));
  bench.submit(greedy_request({5, 63}, 20));
  bench.drain();
  EXPECT_EQ(bench.answers[1].finished->reason, FinishReason::kError);
  EXPECT_EQ(bench.answers[1].finished->error, "the model failed: a token that cannot be computed");
  EXPECT_EQ(bench.answers[2].tokens, solo.tokens);
  EXPECT_EQ(bench.answers[2].finished->reason, FinishReason::kLength);
  EXPECT_EQ(bench.answers[3].finished->reason, FinishReason::kError);
}

TEST(Engine, GivesTheSameTokensAfterPreemption) {
  const auto request = [](int32_t i) {
    Request r = greedy_request({i, i + 1}, 100);
    r.sampling = {.temperature = 1, .repetition_penalty = 1.2f, .seed = 5};
    return r;
  };
  SimulatedBench bench(small_model(4));
  for (int32_t i = 0; i < 4; ++i) bench.submit(request(i));
  bench.drain();
  EXPECT_GT(bench.engine.stats().preemptions, 0);
  EXPECT_GT(bench.engine.stats().recomputed_tokens, 0);
  for (int32_t i = 0; i < 4; ++i) {
    SimulatedBench solo(small_model(4));
    EXPECT_EQ(bench.answers[static_cast<RequestId>(i) + 1].tokens, solo.run(request(i)).tokens);
  }
}

TEST(Engine, CountsWhatItDid) {
  SimulatedModelOptions options = small_model(16);
  options.cost = {.step_ns = 100, .row_ns = 10, .position_ns = 0};
  SimulatedBench bench(options);
  const TestAnswer& answer = bench.run(greedy_request({1, 2, 3}, 4));
  const EngineStats stats = bench.engine.stats();
  EXPECT_EQ(stats.steps, 4);
  EXPECT_EQ(stats.rows, 6);  // three of the prompt, then one for each token but the last
  EXPECT_EQ(stats.forward_ns, 4 * 100 + 6 * 10);
  EXPECT_EQ(stats.prompt_tokens, 3);
  EXPECT_EQ(stats.completion_tokens, 4);
  EXPECT_EQ(stats.accepted, 1);
  EXPECT_EQ(stats.iteration_tokens, 1);
  EXPECT_EQ(stats.last_step_ns, 110);
  EXPECT_EQ(stats.finished[static_cast<size_t>(FinishReason::kLength)], 1);
  EXPECT_EQ(answer.finished->timing.first_token_ns, 130);
  EXPECT_EQ(answer.finished->timing.finished_ns, 460);
}

TEST(Engine, AddsTheBiasOfATokenToItsLogit) {
  SimulatedBench bench(small_model(16));
  Request request = greedy_request({1}, 3);
  request.logit_bias = {{42, 30}, {42, 20}, {7, 49}};  // those of one token add up
  request.sampling.repetition_penalty = 1;
  EXPECT_EQ(bench.run(std::move(request)).tokens, (std::vector<int32_t>{42, 42, 42}));
}

TEST(Engine, EndsWhatWaitsPastItsDeadline) {
  SimulatedModelOptions options = small_model(16);
  options.cost.step_ns = 100;
  SimulatedBench bench(options, nullptr, {.max_sequences = 1});
  bench.submit(greedy_request({1}, 4));
  Request late = greedy_request({1}, 4);
  late.deadline_ns = 399;
  bench.submit(std::move(late));
  Request patient = greedy_request({1}, 4);
  patient.deadline_ns = 400;
  bench.submit(std::move(patient));
  bench.drain();
  EXPECT_EQ(bench.answers[2].finished->reason, FinishReason::kExpired);
  EXPECT_EQ(bench.answers[2].finished->usage.completion_tokens, 0);
  EXPECT_EQ(bench.answers[2].finished->timing.scheduled_ns, 0);
  EXPECT_EQ(bench.answers[3].finished->reason, FinishReason::kLength);
  EXPECT_EQ(bench.engine.stats().finished[static_cast<size_t>(FinishReason::kExpired)], 1);
}

TEST(Engine, RefusesMoreTokensThanMayWait) {
  SimulatedBench bench(small_model(16), nullptr, {.max_waiting_tokens = 10});
  bench.submit(greedy_request(std::vector<int32_t>(8, 1), 1));
  EXPECT_EQ(bench.engine.submit(greedy_request(std::vector<int32_t>(3, 1), 1)).error().code,
            ErrorCode::kExhausted);
  EXPECT_EQ(bench.engine.stats().refused_tokens, 1);
  EXPECT_EQ(bench.engine.stats().refused, 1);
  bench.drain();
}

}  // namespace
}  // namespace quern
