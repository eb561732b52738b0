#include "engine/engine.h"

#include <map>
#include <set>
#include <string>
#include <variant>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/simulated_model.h"
#include "engine/test_tokenizer.h"

namespace quern {
namespace {

using testing::HasSubstr;

SimulatedModelOptions model_options(int64_t kv_blocks) {
  SimulatedModelOptions options;
  options.seed = 3;
  options.vocabulary = 64;
  options.max_context = 512;
  options.limits = {.max_batch_tokens = 64, .max_logit_rows = 8, .kv_blocks = kv_blocks};
  return options;
}

// What came of one request.
struct Answer {
  std::vector<int32_t> tokens;
  std::string text;
  std::optional<FinishedEvent> finished;
};

// An engine on a simulated model, and everything that it said.
struct Bench {
  explicit Bench(SimulatedModelOptions options,
                 const Tokenizer* tokenizer = nullptr,
                 EngineOptions engine_options = {})
      : model(std::move(options), &clock), engine(model, tokenizer, engine_options, clock) {}

  RequestId submit(Request request) {
    const Result<RequestId> id = engine.submit(std::move(request));
    EXPECT_TRUE(id) << (id ? "" : id.error().message);
    return id ? *id : 0;
  }

  bool step() {
    const bool more = engine.step([this](const Event& event) {
      if (const auto* token = std::get_if<TokenEvent>(&event)) {
        Answer& answer = answers[token->request];
        EXPECT_FALSE(answer.finished) << "a token after the end";
        answer.tokens.push_back(token->token);
        answer.text += token->text;
        return;
      }
      const auto& finished = std::get<FinishedEvent>(event);
      EXPECT_FALSE(answers[finished.request].finished) << "a second end";
      answers[finished.request].finished = finished;
    });
    EXPECT_TRUE(engine.consistent());
    return more;
  }

  void drain() {
    while (step()) {
    }
    EXPECT_TRUE(engine.idle());
    EXPECT_EQ(engine.stats().free_blocks, engine.stats().total_blocks);
  }

  const Answer& run(Request request) {
    const RequestId id = submit(std::move(request));
    drain();
    return answers[id];
  }

  ManualClock clock;
  SimulatedModel model;
  Engine engine;
  std::map<RequestId, Answer> answers;
};

Request greedy_request(std::vector<int32_t> prompt, int64_t max_tokens) {
  Request request;
  request.prompt = std::move(prompt);
  request.max_tokens = max_tokens;
  request.sampling.temperature = 0;
  return request;
}

TEST(Engine, RunsARequestToItsMaximum) {
  Bench bench(model_options(16));
  const Answer& answer = bench.run(greedy_request({1, 2, 3}, 10));
  EXPECT_EQ(answer.tokens.size(), 10u);
  ASSERT_TRUE(answer.finished);
  EXPECT_EQ(answer.finished->reason, FinishReason::kLength);
  EXPECT_EQ(answer.finished->usage.prompt_tokens, 3);
  EXPECT_EQ(answer.finished->usage.completion_tokens, 10);
}

TEST(Engine, StopsAtTheModelsEndOfTextUnlessToldToIgnoreIt) {
  Bench plain(model_options(16));
  const std::vector<int32_t> tokens = plain.run(greedy_request({1}, 40)).tokens;
  SimulatedModelOptions options = model_options(16);
  options.eos_tokens = {tokens[5]};
  size_t first = 0;
  while (tokens[first] != tokens[5]) ++first;

  Bench bench(options);
  const Answer& answer = bench.run(greedy_request({1}, 40));
  EXPECT_EQ(answer.finished->reason, FinishReason::kStop);
  EXPECT_EQ(answer.tokens,
            std::vector<int32_t>(tokens.begin(), tokens.begin() + static_cast<long>(first) + 1));

  Request ignoring = greedy_request({1}, 40);
  ignoring.eos = EosTokens::kIgnore;
  EXPECT_EQ(bench.run(ignoring).tokens, tokens);

  Request own = ignoring;  // a stop token of the request counts even so
  own.stop_tokens = {tokens[5]};
  EXPECT_EQ(bench.run(own).tokens.size(), first + 1);

  Request longer = greedy_request({1}, 40);
  longer.min_tokens = 20;
  const Answer& late = bench.run(longer);
  EXPECT_GE(late.tokens.size(), 20u);
  for (size_t i = 0; i < 20; ++i) EXPECT_NE(late.tokens[i], tokens[5]);
}

TEST(Engine, EndsTheTextBeforeAStopStringWhateverTokensSpellIt) {
  const auto tokenizer = make_test_tokenizer();
  Bench bench(model_options(16), tokenizer.get());
  const Answer whole = bench.run(greedy_request({1, 2}, 60));
  ASSERT_GT(whole.text.size(), 40u);
  for (size_t begin = 1; begin + 4 < whole.text.size(); begin += 3) {
    const std::string stop = whole.text.substr(begin, 4);
    if (!stop.empty() && (stop[0] & 0xC0) == 0x80) continue;  // begins within a code point
    Request request = greedy_request({1, 2}, 60);
    request.stop = {stop};
    const Result<RequestId> id = bench.engine.submit(request);
    if (!id) continue;  // the cut ended within a code point
    bench.drain();
    const Answer& answer = bench.answers[*id];
    EXPECT_EQ(answer.text, whole.text.substr(0, whole.text.find(stop))) << "stop " << stop;
    EXPECT_EQ(answer.finished->reason, FinishReason::kStop);
    EXPECT_EQ(answer.finished->stop, stop);
    EXPECT_LE(answer.tokens.size(), whole.tokens.size());
  }
}

TEST(Engine, GivesOutWhatWasHeldBackWhenTheLengthEndsTheText) {
  const auto tokenizer = make_test_tokenizer();
  Bench bench(model_options(16), tokenizer.get());
  const Answer whole = bench.run(greedy_request({7}, 12));
  Request request = greedy_request({7}, 12);
  request.stop = {whole.text.substr(whole.text.size() - 1) + "never"};
  const Answer& answer = bench.run(request);
  EXPECT_EQ(answer.text, whole.text);
  EXPECT_EQ(answer.finished->reason, FinishReason::kLength);
}

TEST(Engine, LetsNoStopStringEndTheTextBeforeItsMinimum) {
  const auto tokenizer = make_test_tokenizer();
  Bench bench(model_options(16), tokenizer.get());
  const Answer whole = bench.run(greedy_request({7}, 30));
  Request request = greedy_request({7}, 30);
  request.stop = {whole.text.substr(0, 1)};
  request.min_tokens = 12;
  const Answer& answer = bench.run(request);
  EXPECT_GE(answer.tokens.size(), 12u);
  EXPECT_EQ(whole.text.substr(0, answer.text.size()), answer.text);
}

TEST(Engine, RefusesStopStringsWithoutATokenizer) {
  Bench bench(model_options(16));
  Request request = greedy_request({1}, 4);
  request.stop = {"x"};
  const Result<RequestId> id = bench.engine.submit(request);
  ASSERT_FALSE(id);
  EXPECT_EQ(id.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(id.error().message, HasSubstr("without a tokenizer"));
  EXPECT_EQ(bench.engine.stats().refused, 1);
}

TEST(Engine, RefusesWhatCanNeverFit) {
  Bench bench(model_options(2));
  EXPECT_EQ(bench.engine.max_request_tokens(), 2 * kKvBlockTokens);
  const Result<RequestId> id = bench.engine.submit(greedy_request({1}, 2 * kKvBlockTokens));
  ASSERT_FALSE(id);
  EXPECT_THAT(id.error().message, HasSubstr("the key-value cache of 64 tokens"));
  EXPECT_EQ(bench.run(greedy_request({1}, 2 * kKvBlockTokens - 1)).tokens.size(), 63u);
}

TEST(Engine, RefusesMoreThanTheQueueHolds) {
  Bench bench(model_options(16), nullptr, {.max_waiting = 2});
  bench.submit(greedy_request({1}, 4));
  bench.submit(greedy_request({1}, 4));
  const Result<RequestId> id = bench.engine.submit(greedy_request({1}, 4));
  ASSERT_FALSE(id);
  EXPECT_EQ(id.error().code, ErrorCode::kExhausted);
  bench.drain();
  EXPECT_EQ(bench.submit(greedy_request({1}, 4)), 3u);  // a refusal takes no number
  bench.drain();
}

TEST(Engine, CancelsAtTheNextStepAndIgnoresUnknownIds) {
  Bench bench(model_options(16));
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
  Bench bench(model_options(16));
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
  SimulatedModelOptions options = model_options(16);
  const std::vector<int32_t> solo = Bench(options).run(greedy_request({1, 2}, 20)).tokens;
  options.nan_token = 63;
  Bench bench(options);
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
  SimulatedModelOptions options = model_options(16);
  options.throw_token = 63;
  Bench alone(options), bench(options);
  const Answer solo = alone.run(greedy_request({1, 2}, 3));
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
  Bench bench(model_options(4));
  for (int32_t i = 0; i < 4; ++i) bench.submit(request(i));
  bench.drain();
  EXPECT_GT(bench.engine.stats().preemptions, 0);
  EXPECT_GT(bench.engine.stats().recomputed_tokens, 0);
  for (int32_t i = 0; i < 4; ++i) {
    Bench solo(model_options(4));
    EXPECT_EQ(bench.answers[static_cast<RequestId>(i) + 1].tokens, solo.run(request(i)).tokens);
  }
}

TEST(Engine, CountsWhatItDid) {
  SimulatedModelOptions options = model_options(16);
  options.cost = {.step_ns = 100, .row_ns = 10, .position_ns = 0};
  Bench bench(options);
  const Answer& answer = bench.run(greedy_request({1, 2, 3}, 4));
  const EngineStats stats = bench.engine.stats();
  EXPECT_EQ(stats.steps, 4);
  EXPECT_EQ(stats.rows, 6);  // three of the prompt, then one for each token but the last
  EXPECT_EQ(stats.forward_ns, 4 * 100 + 6 * 10);
  EXPECT_EQ(stats.prompt_tokens, 3);
  EXPECT_EQ(stats.completion_tokens, 4);
  EXPECT_EQ(stats.accepted, 1);
  EXPECT_EQ(stats.finished[static_cast<size_t>(FinishReason::kLength)], 1);
  EXPECT_EQ(answer.finished->timing.first_token_ns, 130);
  EXPECT_EQ(answer.finished->timing.finished_ns, 460);
}

TEST(Engine, ReportsLogprobsWhenAsked) {
  Bench bench(model_options(16));
  Request request = greedy_request({1}, 3);
  request.top_logprobs = 2;
  bench.submit(request);
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

}  // namespace
}  // namespace quern
