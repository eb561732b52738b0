// Runs the engine on random loads from seeds: whatever happens around a request, its tokens and its
// text are those that it gets alone.
#include <algorithm>
#include <map>
#include <string>
#include <variant>

#include <gtest/gtest.h>

#include "base/random.h"
#include "engine/engine.h"
#include "engine/simulated_model.h"
#include "engine/test_bench.h"
#include "engine/test_request.h"
#include "engine/test_tokenizer.h"

namespace quern {
namespace {

constexpr int64_t kVocabulary = 64;

// Numbers of one simulation, each drawn once.
class Dice {
 public:
  explicit Dice(uint64_t seed) : seed_(seed) {}

  int64_t in(int64_t least, int64_t most) {
    const auto span = static_cast<uint64_t>(most - least + 1);
    return least + static_cast<int64_t>(random_bits(seed_, 1, count_++) % span);
  }

  float real(double least, double most) {
    return static_cast<float>(least + (most - least) * random_uniform(seed_, 2, count_++));
  }

  bool one_in(int64_t n) { return in(1, n) == 1; }

 private:
  uint64_t seed_;
  uint64_t count_ = 0;
};

RequestRecipe random_request(Dice& dice, int64_t longest) {
  RequestRecipe recipe;
  Request& request = recipe.request;
  const int64_t prompt =
      dice.in(1, dice.one_in(2) ? longest - 1 : std::min<int64_t>(20, longest - 1));
  const int64_t shared = dice.one_in(3) ? 0 : dice.in(prompt / 2, prompt);  // one of three prefixes
  const auto prefix = static_cast<uint64_t>(dice.in(0, 2));
  for (int64_t i = 0; i < prompt; ++i) {
    const uint64_t bits = random_bits(77, prefix, static_cast<uint64_t>(i)) % 40;
    const int64_t token = i < shared ? static_cast<int64_t>(bits) + 1 : dice.in(1, kVocabulary - 1);
    request.prompt.push_back(static_cast<int32_t>(token));
  }
  request.cache_salt = dice.one_in(4) ? 1 : 0;
  if (dice.one_in(3)) request.priority = static_cast<int32_t>(dice.in(-1, 1));
  request.tenant = static_cast<uint64_t>(dice.in(0, 3));
  request.tenant_weight = static_cast<int32_t>(dice.in(1, 4));
  if (dice.one_in(8)) request.deadline_ns = dice.in(0, 400);
  request.max_tokens = dice.in(1, std::min<int64_t>(longest - prompt, 250));
  if (dice.one_in(3)) request.min_tokens = dice.in(0, request.max_tokens);
  SamplingParams& sampling = request.sampling;
  sampling.temperature = dice.one_in(3) ? 0 : dice.real(0.2, 2);
  if (dice.one_in(2)) sampling.top_k = static_cast<int32_t>(dice.in(1, 40));
  if (dice.one_in(2)) sampling.top_p = dice.real(0.1, 1);
  if (dice.one_in(4)) sampling.min_p = dice.real(0, 0.3);
  if (dice.one_in(4)) sampling.repetition_penalty = dice.real(0.8, 1.5);
  if (dice.one_in(4)) sampling.frequency_penalty = dice.real(-1, 1);
  sampling.seed = static_cast<uint64_t>(dice.in(0, 3));
  if (dice.one_in(5)) request.stop = {dice.one_in(2) ? "w1" : "END", "the"};
  if (dice.one_in(4)) request.eos = EosTokens::kIgnore;
  if (dice.one_in(3)) request.top_logprobs = static_cast<int32_t>(dice.in(0, 3));
  if (dice.one_in(5)) request.prompt_logprobs = static_cast<int32_t>(dice.in(0, 3));
  if (dice.one_in(4)) request.logit_bias = {{static_cast<int32_t>(dice.in(0, 63)), 2}, {0, -3}};
  if (dice.one_in(2)) {  // two tokens that repeat each other, so that guesses come true
    request.logit_bias = {{5, 40}, {6, 39}, {static_cast<int32_t>(dice.in(0, 63)), 38}};
  }
  if (dice.one_in(4)) {
    recipe.constraint_seed = static_cast<uint64_t>(dice.in(0, 1000));
    recipe.constraint_length = dice.in(1, 2 * request.max_tokens);
  }
  if (dice.one_in(6)) {
    request.embedding = dice.one_in(2) ? Pooling::kMean : Pooling::kLast;
    request.max_tokens = request.min_tokens = 0;
    request.prompt_logprobs.reset();
    recipe.constraint_seed.reset();
  }
  return recipe;
}

struct Simulation {
  SimulatedModelOptions model;
  EngineOptions engine;
  std::optional<SimulatedModelOptions> draft_model;
  int64_t requests = 0;
  int64_t steps_between_arrivals = 0;
};

// Often the same model, whose guesses are right; its cache and its batch may be too small for all.
SimulatedModelOptions random_draft_model(Dice& dice, const SimulatedModelOptions& model) {
  SimulatedModelOptions draft = model;
  if (dice.one_in(3)) ++draft.seed;
  draft.cost.step_ns = dice.in(0, 1);
  draft.limits = {.max_batch_tokens = dice.in(1, 40),
                  .max_logit_rows = dice.in(1, 8),
                  .kv_blocks = dice.in(1, 30)};
  if (dice.one_in(6)) draft.nan_token = static_cast<int32_t>(dice.in(30, 63));
  if (dice.one_in(6)) draft.throw_token = static_cast<int32_t>(dice.in(30, 63));
  return draft;
}

Simulation random_simulation(Dice& dice, uint64_t seed) {
  Simulation simulation;
  simulation.model.seed = seed;
  simulation.model.vocabulary = kVocabulary;
  simulation.model.cost.step_ns = 1;
  simulation.model.max_context = dice.in(40, 300);
  if (dice.one_in(3)) simulation.model.eos_tokens = {0};
  simulation.model.limits = {.max_batch_tokens = dice.in(8, 100),
                             .max_logit_rows = dice.in(1, 8),
                             .kv_blocks = dice.one_in(4) ? dice.in(15, 40) : dice.in(2, 14)};
  if (dice.one_in(4)) simulation.model.nan_token = static_cast<int32_t>(dice.in(50, 63));
  if (dice.one_in(4)) simulation.model.throw_token = static_cast<int32_t>(dice.in(50, 63));
  if (dice.one_in(2)) simulation.engine.max_prefill_chunk = dice.in(1, 40);
  simulation.engine.max_waiting = dice.in(4, 30);
  if (dice.one_in(3)) simulation.engine.max_waiting_tokens = dice.in(50, 500);
  if (dice.one_in(5)) simulation.engine.prefix_caching = PrefixCaching::kOff;
  if (!dice.one_in(3)) {
    const int64_t least = dice.in(1, 3);
    simulation.engine.speculation = {
        .max_draft = dice.in(1, 6), .min_ngram = least, .max_ngram = least + dice.in(0, 3)};
  }
  if (dice.one_in(3)) simulation.model.cost.row_ns = dice.in(0, 2);
  if (dice.one_in(3)) simulation.draft_model = random_draft_model(dice, simulation.model);
  simulation.requests = dice.in(5, 30);
  simulation.steps_between_arrivals = dice.in(1, 8);
  return simulation;
}

TestAnswer run_alone(const Simulation& simulation,
                     const Tokenizer& tokenizer,
                     const RequestRecipe& recipe) {
  SimulatedModel model(simulation.model, nullptr);
  const ManualClock clock;
  Engine engine(model, &tokenizer, {}, clock);
  const Result<RequestId> id = engine.submit(recipe.make(kVocabulary));
  EXPECT_TRUE(id);
  TestAnswers answers;
  while (engine.step([&](const Event& event) { record(answers, event); })) {
  }
  return answers[1];
}

struct Totals {
  int64_t finished = 0;
  int64_t embeddings = 0;
  int64_t cancelled = 0;
  int64_t failed = 0;
  int64_t expired = 0;
  int64_t refused = 0;
  int64_t preemptions = 0;
  int64_t prefix_hits = 0;
  int64_t draft_tokens = 0;
  int64_t accepted_tokens = 0;
  int64_t accepted_of_draft_model = 0;
};

// Whether `part` is the first of `whole`, bit for bit.
bool begins(const std::vector<Logprobs>& whole, const std::vector<Logprobs>& part) {
  const auto same_entry = [](const TokenLogprob& a, const TokenLogprob& b) {
    return a.token == b.token && a.logprob == b.logprob;
  };
  const auto same = [&](const Logprobs& a, const Logprobs& b) {
    return a.chosen == b.chosen &&
           std::equal(a.top.begin(), a.top.end(), b.top.begin(), b.top.end(), same_entry);
  };
  return part.size() <= whole.size() && std::equal(part.begin(), part.end(), whole.begin(), same);
}

void expect_same_as_alone(const TestAnswer& answer, const TestAnswer& alone) {
  ASSERT_TRUE(answer.finished);
  EXPECT_EQ(answer.finished->usage.completion_tokens, static_cast<int64_t>(answer.tokens.size()));
  EXPECT_TRUE(begins(alone.logprobs, answer.logprobs));
  if (answer.prompt_logprobs) EXPECT_TRUE(begins(*alone.prompt_logprobs, *answer.prompt_logprobs));
  if (answer.finished->reason == FinishReason::kCancelled) {
    ASSERT_LE(answer.tokens.size(), alone.tokens.size());
    EXPECT_TRUE(std::equal(answer.tokens.begin(), answer.tokens.end(), alone.tokens.begin()));
    EXPECT_EQ(alone.text.substr(0, answer.text.size()), answer.text);
    return;
  }
  if (answer.finished->reason == FinishReason::kExpired) {
    EXPECT_TRUE(answer.tokens.empty() && !answer.prompt_logprobs);
    return;
  }
  EXPECT_EQ(answer.finished->reason, alone.finished->reason);
  EXPECT_EQ(answer.finished->stop, alone.finished->stop);
  EXPECT_EQ(answer.tokens, alone.tokens);
  EXPECT_EQ(answer.text, alone.text);
  EXPECT_EQ(answer.logprobs.size(), alone.logprobs.size());
  EXPECT_EQ(answer.prompt_logprobs.has_value(), alone.prompt_logprobs.has_value());
  if (answer.prompt_logprobs)
    EXPECT_EQ(answer.prompt_logprobs->size(), alone.prompt_logprobs->size());
  EXPECT_EQ(answer.embedding, alone.embedding);
}

// Submits and cancels at random between steps until all requests have ended.
void simulate(uint64_t seed, const Tokenizer& tokenizer, Totals& totals) {
  Dice dice(seed);
  const Simulation simulation = random_simulation(dice, seed);
  ManualClock clock;
  SimulatedModel model(simulation.model, &clock);
  std::optional<SimulatedModel> draft_model;
  if (simulation.draft_model) draft_model.emplace(*simulation.draft_model, &clock);
  Engine engine(model, &tokenizer, simulation.engine, clock, draft_model ? &*draft_model : nullptr);
  std::map<RequestId, RequestRecipe> requests;
  TestAnswers answers;
  int64_t left = simulation.requests;
  for (int64_t steps = 0; left > 0 || !engine.idle(); ++steps) {
    ASSERT_LT(steps, 20000) << "no progress";
    while (left > 0 && dice.one_in(simulation.steps_between_arrivals)) {
      --left;
      RequestRecipe recipe = random_request(dice, engine.max_request_tokens());
      const Result<RequestId> id = engine.submit(recipe.make(kVocabulary));
      if (id) {
        requests.emplace(*id, std::move(recipe));
      } else {
        ASSERT_EQ(id.error().code, ErrorCode::kExhausted) << id.error().message;
        ++totals.refused;
      }
    }
    if (!requests.empty() && dice.one_in(25)) {
      engine.cancel(static_cast<RequestId>(dice.in(1, static_cast<int64_t>(requests.size()))));
    }
    engine.step([&](const Event& event) { record(answers, event); });
    ASSERT_TRUE(engine.consistent());
    const EngineStats stats = engine.stats();
    ASSERT_LE(stats.running, simulation.model.limits.max_logit_rows);
  }
  const EngineStats stats = engine.stats();
  ASSERT_EQ(stats.free_blocks, stats.total_blocks);
  ASSERT_EQ(answers.size(), requests.size());
  ASSERT_LE(model.most_rows(), simulation.model.limits.max_batch_tokens);
  ASSERT_LE(model.most_logit_rows(), simulation.model.limits.max_logit_rows);
  totals.preemptions += stats.preemptions;
  totals.prefix_hits += stats.prefix_hits;
  totals.draft_tokens += stats.draft_tokens;
  totals.accepted_tokens += stats.accepted_tokens;
  totals.accepted_of_draft_model += draft_model ? stats.accepted_tokens : 0;
  totals.finished += stats.finished[0] + stats.finished[1];
  totals.cancelled += stats.finished[2];
  totals.failed += stats.finished[3];
  totals.expired += stats.finished[4];
  int64_t completion_tokens = 0, cached_tokens = 0;
  for (const auto& [id, recipe] : requests) {
    SCOPED_TRACE(testing::Message() << "request " << id);
    totals.embeddings += answers[id].embedding.empty() ? 0 : 1;
    expect_same_as_alone(answers[id], run_alone(simulation, tokenizer, recipe));
    completion_tokens += static_cast<int64_t>(answers[id].tokens.size());
    const Usage& usage = answers[id].finished->usage;
    EXPECT_EQ(usage.prompt_tokens, static_cast<int64_t>(recipe.request.prompt.size()));
    EXPECT_LT(usage.cached_tokens, usage.prompt_tokens);
    cached_tokens += usage.cached_tokens;
  }
  EXPECT_EQ(stats.prefix_hits, cached_tokens);
  EXPECT_EQ(stats.completion_tokens, completion_tokens);
}

TEST(EngineSimulation, GivesEveryRequestWhatItGetsAlone) {
  const auto tokenizer = make_test_tokenizer();
  ASSERT_NE(tokenizer, nullptr);
  Totals totals;
  for (uint64_t seed = 1; seed <= 800; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    simulate(seed, *tokenizer, totals);
    if (testing::Test::HasFailure()) return;
  }
  // The loads reach what they are meant to reach.
  EXPECT_GT(totals.finished, 1000);
  EXPECT_GT(totals.embeddings, 200);
  EXPECT_GT(totals.cancelled, 50);
  EXPECT_GT(totals.failed, 50);
  EXPECT_GT(totals.expired, 20);
  EXPECT_GT(totals.refused, 10);
  EXPECT_GT(totals.preemptions, 200);
  EXPECT_GT(totals.prefix_hits, 3000);
  EXPECT_GT(totals.draft_tokens, 10000);
  EXPECT_GT(totals.accepted_tokens, 3000);
  EXPECT_GT(totals.accepted_of_draft_model, 3000);
}

// Clients that come and go at every phase: while waiting, in the midst of a prompt, after
// preemption, in the midst of an answer.
TEST(EngineSimulation, KeepsNothingOfTwentyThousandThatLeft) {
  constexpr RequestId kRequests = 20000;
  SimulatedModelOptions options;
  options.vocabulary = kVocabulary;
  options.max_context = 200;
  options.limits = {.max_batch_tokens = 48, .max_logit_rows = 12, .kv_blocks = 20};
  SimulatedModel model(options, nullptr);
  const ManualClock clock;
  const EngineOptions engine_options{
      .max_waiting = 40, .max_prefill_chunk = 16, .speculation = {.max_draft = 4}};
  Engine engine(model, nullptr, engine_options, clock);
  Dice dice(99);
  RequestId last = 0;
  std::map<RequestId, int> ends;
  const auto sink = [&](const Event& event) {
    if (const auto* finished = std::get_if<FinishedEvent>(&event)) ++ends[finished->request];
  };
  while (last < kRequests) {
    for (int64_t n = dice.in(0, 6); n > 0; --n) {
      RequestRecipe recipe = random_request(dice, engine.max_request_tokens());
      recipe.request.stop.clear();
      recipe.request.deadline_ns.reset();
      const Result<RequestId> id = engine.submit(recipe.make(kVocabulary));
      if (id) last = *id;
    }
    for (int64_t n = dice.in(0, 6); n > 0; --n) {
      const auto back = static_cast<RequestId>(dice.in(0, 60));
      if (back < last) engine.cancel(last - back);
    }
    engine.step(sink);
    if (last % 64 == 0) {
      ASSERT_TRUE(engine.consistent());
    }
  }
  for (RequestId id = 1; id <= last; ++id) engine.cancel(id);
  engine.step(sink);  // one step ends them all
  EXPECT_TRUE(engine.idle());
  EXPECT_TRUE(engine.consistent());
  const EngineStats stats = engine.stats();
  EXPECT_EQ(stats.free_blocks, stats.total_blocks);
  EXPECT_EQ(stats.waiting + stats.running + stats.waiting_tokens, 0);
  EXPECT_GT(stats.preemptions, 1000);
  EXPECT_GT(stats.finished[static_cast<size_t>(FinishReason::kCancelled)], 5000);
  EXPECT_EQ(ends.size(), last);
  for (const auto& [id, count] : ends) EXPECT_EQ(count, 1) << "request " << id;
}

}  // namespace
}  // namespace quern
