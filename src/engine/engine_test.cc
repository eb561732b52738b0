#include "engine/engine.h"

#include <algorithm>
#include <map>
#include <set>
#include <stdexcept>
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

SimulatedModelOptions model_options(int64_t kv_blocks) {
  SimulatedModelOptions options;
  options.seed = 3;
  options.vocabulary = 64;
  options.max_context = 512;
  options.limits = {.max_batch_tokens = 64, .max_logit_rows = 8, .kv_blocks = kv_blocks};
  return options;
}

using Answer = TestAnswer;

// An engine on a simulated model.
struct Bench : EngineDriver {
  explicit Bench(SimulatedModelOptions options,
                 const Tokenizer* tokenizer = nullptr,
                 EngineOptions engine_options = {})
      : EngineDriver(engine),
        model(std::move(options), &clock),
        engine(model, tokenizer, engine_options, clock) {}

  ManualClock clock;
  SimulatedModel model;
  Engine engine;
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
  EXPECT_EQ(bench.run(copy_of(ignoring)).tokens, tokens);

  Request own = copy_of(ignoring);  // a stop token of the request counts even so
  own.stop_tokens = {tokens[5]};
  EXPECT_EQ(bench.run(std::move(own)).tokens.size(), first + 1);

  Request longer = greedy_request({1}, 40);
  longer.min_tokens = 20;
  const Answer& late = bench.run(std::move(longer));
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
    const Result<RequestId> id = bench.engine.submit(std::move(request));
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
  const Answer& answer = bench.run(std::move(request));
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
  const Answer& answer = bench.run(std::move(request));
  EXPECT_GE(answer.tokens.size(), 12u);
  EXPECT_EQ(whole.text.substr(0, answer.text.size()), answer.text);
}

TEST(Engine, RefusesStopStringsWithoutATokenizer) {
  Bench bench(model_options(16));
  Request request = greedy_request({1}, 4);
  request.stop = {"x"};
  const Result<RequestId> id = bench.engine.submit(std::move(request));
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
  EXPECT_EQ(stats.iteration_tokens, 1);
  EXPECT_EQ(stats.last_step_ns, 110);
  EXPECT_EQ(stats.finished[static_cast<size_t>(FinishReason::kLength)], 1);
  EXPECT_EQ(answer.finished->timing.first_token_ns, 130);
  EXPECT_EQ(answer.finished->timing.finished_ns, 460);
}

TEST(Engine, ReportsLogprobsWhenAsked) {
  Bench bench(model_options(16));
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

// The model's logprobs of each token of `tokens` after those before it, by asking it for one row at
// a time.
std::vector<Logprobs> logprobs_one_by_one(const std::vector<int32_t>& tokens, int32_t top) {
  std::vector<Logprobs> all;
  for (size_t i = 1; i < tokens.size(); ++i) {
    Bench bench(model_options(16));
    Request request = greedy_request({tokens.begin(), tokens.begin() + static_cast<long>(i)}, 1);
    request.top_logprobs = kMaxLogprobs;
    for (int32_t other = 0; other < 64; ++other) {  // no other token may be chosen
      request.logit_bias.push_back({other, other == tokens[i] ? 100.0f : -100.0f});
    }
    Logprobs logprobs = bench.run(std::move(request)).logprobs[0];
    logprobs.top.resize(static_cast<size_t>(top));
    all.push_back(logprobs);
  }
  return all;
}

void expect_equal(const std::vector<Logprobs>& a, const std::vector<Logprobs>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].chosen, b[i].chosen) << "at " << i;
    ASSERT_EQ(a[i].top.size(), b[i].top.size());
    for (size_t k = 0; k < a[i].top.size(); ++k) {
      EXPECT_EQ(a[i].top[k].token, b[i].top[k].token);
      EXPECT_EQ(a[i].top[k].logprob, b[i].top[k].logprob);
    }
  }
}

TEST(Engine, GivesThePromptsLogprobsInWhateverChunks) {
  std::vector<int32_t> prompt;
  for (int32_t i = 0; i < 45; ++i) prompt.push_back(i * 7 % 64);
  const std::vector<Logprobs> expected = logprobs_one_by_one(prompt, 3);
  for (const int64_t logit_rows : {1, 3, 64}) {
    SimulatedModelOptions options = model_options(16);
    options.limits.max_logit_rows = logit_rows;
    Bench bench(options);
    Request request = greedy_request(prompt, 4);
    request.prompt_logprobs = 3;
    const std::vector<int32_t> plain = Bench(options).run(greedy_request(prompt, 4)).tokens;
    const Answer& answer = bench.run(std::move(request));
    ASSERT_TRUE(answer.prompt_logprobs);
    expect_equal(*answer.prompt_logprobs, expected);
    EXPECT_EQ(answer.tokens, plain);
  }
}

TEST(Engine, GivesThePromptsLogprobsOnceHoweverOftenItWasPreempted) {
  SimulatedModelOptions options = model_options(4);
  options.limits.max_logit_rows = 2;
  Bench bench(options);
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

TEST(Engine, GivesAnEmptyListOfLogprobsForAPromptOfOneToken) {
  Bench bench(model_options(16));
  Request request = greedy_request({1}, 2);
  request.prompt_logprobs = 0;
  const Answer& answer = bench.run(std::move(request));
  ASSERT_TRUE(answer.prompt_logprobs);
  EXPECT_TRUE(answer.prompt_logprobs->empty());
}

TEST(Engine, FailsAPromptWhoseLogprobsAreNotFinite) {
  SimulatedModelOptions options = model_options(16);
  options.nan_token = 63;
  Bench bench(options);
  Request request = greedy_request({1, 2, 63, 4}, 2);
  request.prompt_logprobs = 0;
  const Answer& answer = bench.run(std::move(request));
  EXPECT_EQ(answer.finished->reason, FinishReason::kError);
  EXPECT_THAT(answer.finished->error, HasSubstr("position 2 are not finite"));
  EXPECT_FALSE(answer.prompt_logprobs);
}

TEST(Engine, AddsTheBiasOfATokenToItsLogit) {
  Bench bench(model_options(16));
  Request request = greedy_request({1}, 3);
  request.logit_bias = {{42, 30}, {42, 20}, {7, 49}};  // those of one token add up
  request.sampling.repetition_penalty = 1;
  EXPECT_EQ(bench.run(std::move(request)).tokens, (std::vector<int32_t>{42, 42, 42}));
}

TEST(Engine, FollowsAConstraintToItsEnd) {
  Bench bench(model_options(16));
  Request request = greedy_request({1}, 40);
  request.constraint = std::make_unique<HashConstraint>(9, 64, 6);
  const Answer& answer = bench.run(std::move(request));
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

TEST(Engine, LetsAConstraintEndTheTextBeforeItsMinimum) {
  SimulatedModelOptions options = model_options(16);
  options.eos_tokens = {9};
  Bench bench(options);
  Request request = greedy_request({1}, 40);
  request.min_tokens = 5;
  request.constraint = std::make_unique<OneToken>(9);
  const Answer& answer = bench.run(std::move(request));
  EXPECT_EQ(answer.tokens, std::vector<int32_t>{9});
  EXPECT_EQ(answer.finished->reason, FinishReason::kStop);
}

TEST(Engine, FailsOnlyTheRequestWhoseConstraintThrows) {
  Bench bench(model_options(16));
  Request request = greedy_request({1}, 4);
  request.constraint = std::make_unique<OneToken>(-1);
  bench.submit(std::move(request));
  bench.submit(greedy_request({1}, 4));
  bench.drain();
  EXPECT_EQ(bench.answers[1].finished->reason, FinishReason::kError);
  EXPECT_EQ(bench.answers[1].finished->error, "the constraint failed: out of memory");
  EXPECT_EQ(bench.answers[2].finished->reason, FinishReason::kLength);
}

TEST(Engine, EndsWhatWaitsPastItsDeadline) {
  SimulatedModelOptions options = model_options(16);
  options.cost.step_ns = 100;
  Bench bench(options, nullptr, {.max_sequences = 1});
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

std::vector<int32_t> long_prompt(int64_t tokens) {
  std::vector<int32_t> prompt;
  for (int64_t i = 0; i < tokens; ++i) prompt.push_back(static_cast<int32_t>(i * i % 61));
  return prompt;
}

TEST(Engine, TakesPrefixesFromTheCacheAndGivesTheSameTokens) {
  Bench bench(model_options(16));
  const std::vector<int32_t> prompt = long_prompt(2 * kKvBlockTokens + 9);
  const Answer first = bench.run(greedy_request(prompt, 40));
  EXPECT_EQ(first.finished->usage.cached_tokens, 0);
  const Answer second = bench.run(greedy_request(prompt, 40));
  EXPECT_EQ(second.tokens, first.tokens);
  EXPECT_EQ(second.finished->usage.cached_tokens, 2 * kKvBlockTokens);
  EXPECT_EQ(second.finished->usage.prompt_tokens, 2 * kKvBlockTokens + 9);

  std::vector<int32_t> turn = prompt;  // a next turn finds the answer cached as well
  turn.insert(turn.end(), first.tokens.begin(), first.tokens.end());
  const Answer third = bench.run(greedy_request(turn, 5));
  EXPECT_EQ(third.finished->usage.cached_tokens, 3 * kKvBlockTokens);
  EXPECT_EQ(third.tokens, Bench(model_options(16)).run(greedy_request(turn, 5)).tokens);
  EXPECT_EQ(bench.engine.stats().prefix_queries, 73 + 73 + 113);
  EXPECT_EQ(bench.engine.stats().prefix_hits, 64 + 96);
  EXPECT_EQ(bench.engine.stats().prompt_tokens, 73 + 73 + 113);
}

TEST(Engine, ComputesAtLeastTheLastTokenOfAPrompt) {
  Bench bench(model_options(16));
  const std::vector<int32_t> prompt = long_prompt(2 * kKvBlockTokens);
  const Answer first = bench.run(greedy_request(prompt, 3));
  const Answer second = bench.run(greedy_request(prompt, 3));
  EXPECT_EQ(second.tokens, first.tokens);
  EXPECT_EQ(second.finished->usage.cached_tokens, kKvBlockTokens);
}

TEST(Engine, SharesNoPrefixAcrossSalts) {
  Bench bench(model_options(16));
  const std::vector<int32_t> prompt = long_prompt(50);
  bench.run(greedy_request(prompt, 3));
  Request stranger = greedy_request(prompt, 3);
  stranger.cache_salt = 1;
  EXPECT_EQ(bench.run(std::move(stranger)).finished->usage.cached_tokens, 0);
}

TEST(Engine, TakesNothingFromTheCacheWhenThePromptsLogprobsAreWanted) {
  Bench bench(model_options(16));
  const std::vector<int32_t> prompt = long_prompt(50);
  bench.run(greedy_request(prompt, 3));
  Request request = greedy_request(prompt, 3);
  request.prompt_logprobs = 0;
  const Answer& answer = bench.run(std::move(request));
  EXPECT_EQ(answer.finished->usage.cached_tokens, 0);
  expect_equal(*answer.prompt_logprobs, logprobs_one_by_one(prompt, 0));
}

TEST(Engine, CountsNoTokenAsCachedThatItComputedForTheRequestBefore) {
  Bench bench(model_options(6));
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

TEST(Engine, SharesWhatAnotherAnswerToThePromptComputesMeanwhile) {
  SimulatedModelOptions options = model_options(40);
  const std::vector<int32_t> prompt = long_prompt(200);
  Bench bench(options);
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
    EXPECT_EQ(bench.answers[stream + 1].tokens, Bench(options).run(std::move(request)).tokens);
  }
}

TEST(Engine, CachesNothingOfARequestThatFailed) {
  SimulatedModelOptions options = model_options(16);
  options.nan_token = 63;
  Bench bench(options);
  std::vector<int32_t> prompt = long_prompt(40);
  prompt[5] = 63;
  EXPECT_EQ(bench.run(greedy_request(prompt, 3)).finished->reason, FinishReason::kError);
  EXPECT_EQ(bench.engine.stats().cached_blocks, 0);
  EXPECT_EQ(bench.run(greedy_request(prompt, 3)).finished->usage.cached_tokens, 0);
}

TEST(Engine, CachesNothingWhenToldNotTo) {
  Bench bench(model_options(16), nullptr, {.prefix_caching = PrefixCaching::kOff});
  const std::vector<int32_t> prompt = long_prompt(50);
  bench.run(greedy_request(prompt, 3));
  EXPECT_EQ(bench.run(greedy_request(prompt, 3)).finished->usage.cached_tokens, 0);
  EXPECT_EQ(bench.engine.stats().cached_blocks, 0);
}

TEST(Engine, RefusesMoreTokensThanMayWait) {
  Bench bench(model_options(16), nullptr, {.max_waiting_tokens = 10});
  bench.submit(greedy_request(long_prompt(8), 1));
  EXPECT_EQ(bench.engine.submit(greedy_request(long_prompt(3), 1)).error().code,
            ErrorCode::kExhausted);
  EXPECT_EQ(bench.engine.stats().refused_tokens, 1);
  EXPECT_EQ(bench.engine.stats().refused, 1);
  bench.drain();
}

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

TEST(Engine, GuessesTokensAndGivesTheSameInFewerSteps) {
  Bench plain(model_options(16)),
      guessing(model_options(16), nullptr, {.speculation = {.max_draft = 4}});
  for (uint64_t seed = 0; seed < 3; ++seed) {
    const Answer expected = plain.run(repetitive_request(seed));
    const Answer& answer = guessing.run(repetitive_request(seed));
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

TEST(Engine, StopsGuessingWhereARowCostsAsMuchAsAStep) {
  SimulatedModelOptions dear = model_options(16), cheap = model_options(16);
  dear.cost = {.step_ns = 0, .row_ns = 100};
  cheap.cost = {.step_ns = 100, .row_ns = 1};
  const EngineOptions options{.speculation = {.max_draft = 4}};
  Bench with_dear_rows(dear, nullptr, options), with_cheap_rows(cheap, nullptr, options);
  for (uint64_t seed = 0; seed < 20; ++seed) {
    with_dear_rows.run(repetitive_request(seed));
    with_cheap_rows.run(repetitive_request(seed));
  }
  EXPECT_LT(with_dear_rows.engine.stats().draft_tokens, 200);
  EXPECT_GT(with_cheap_rows.engine.stats().draft_tokens, 1000);
  EXPECT_LT(with_cheap_rows.clock.now_ns(), 20 * 90 * 101 * 3 / 4);
}

TEST(Engine, GuessesNothingForAConstraint) {
  Bench bench(model_options(16), nullptr, {.speculation = {.max_draft = 4, .min_ngram = 1}});
  Request request = repetitive_request(1);
  request.constraint = std::make_unique<HashConstraint>(9, 64, 60);
  EXPECT_EQ(bench.run(std::move(request)).tokens.size(), 60u);
  EXPECT_EQ(bench.engine.stats().draft_tokens, 0);
}

TEST(Engine, EndsAtOnceWhenCancelledAmongGuessedTokens) {
  Bench bench(model_options(16), nullptr, {.speculation = {.max_draft = 4}});
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

TEST(Engine, FailsNobodyForAGuessThatTheModelThrowsOn) {
  SimulatedModelOptions options = model_options(16);
  const auto request = [] {
    Request r = greedy_request({1, 2}, 40);
    r.sampling.temperature = 1;
    r.logit_bias = {{7, 40}, {8, 39}};
    return r;
  };
  const std::vector<int32_t> expected = Bench(options).run(request()).tokens;
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
