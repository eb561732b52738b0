// Drives an engine and writes down what it says, for the tests of this folder.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

#include "engine/engine.h"
#include "engine/simulated_model.h"

namespace quern {

// What came of one request.
struct TestAnswer {
  std::vector<int32_t> tokens;
  std::string text;
  std::vector<Logprobs> logprobs;
  std::optional<std::vector<Logprobs>> prompt_logprobs;
  std::vector<float> embedding;
  std::optional<FinishedEvent> finished;
};

using TestAnswers = std::map<RequestId, TestAnswer>;

// Notes an event, and that it comes when it may.
inline void record(TestAnswers& answers, const Event& event) {
  TestAnswer& answer = answers[std::visit([](const auto& e) { return e.request; }, event)];
  EXPECT_FALSE(answer.finished) << "something after the end";
  if (const auto* token = std::get_if<TokenEvent>(&event)) {
    answer.tokens.push_back(token->token);
    answer.text += token->text;
    if (token->logprobs) answer.logprobs.push_back(*token->logprobs);
  } else if (const auto* prompt = std::get_if<PromptLogprobsEvent>(&event)) {
    EXPECT_TRUE(answer.tokens.empty() && !answer.prompt_logprobs) << "not before the tokens";
    answer.prompt_logprobs = prompt->logprobs;
  } else if (const auto* embedding = std::get_if<EmbeddingEvent>(&event)) {
    EXPECT_TRUE(answer.embedding.empty()) << "a second embedding";
    answer.embedding = embedding->embedding;
  } else {
    answer.finished = std::get<FinishedEvent>(event);
  }
}

// Borrows an engine whose requests all come from here.
class EngineDriver {
 public:
  explicit EngineDriver(Engine& engine) : driven_(engine) {}

  RequestId submit(Request request) {
    const Result<RequestId> id = driven_.submit(std::move(request));
    EXPECT_TRUE(id) << (id ? "" : id.error().message);
    return id ? *id : 0;
  }

  bool step() {
    const bool more = driven_.step([this](const Event& event) { record(answers, event); });
    EXPECT_TRUE(driven_.consistent());
    return more;
  }

  void drain() {
    while (step()) {
    }
    EXPECT_TRUE(driven_.idle());
    EXPECT_EQ(driven_.stats().free_blocks, driven_.stats().total_blocks);
  }

  const TestAnswer& run(Request request) {
    const RequestId id = submit(std::move(request));
    drain();
    return answers[id];
  }

  TestAnswers answers;

 private:
  Engine& driven_;
};

// 64 tokens of vocabulary, at most 64 rows a step.
inline SimulatedModelOptions small_model(int64_t kv_blocks) {
  SimulatedModelOptions options;
  options.seed = 3;
  options.vocabulary = 64;
  options.max_context = 512;
  options.limits = {.max_batch_tokens = 64, .max_logit_rows = 8, .kv_blocks = kv_blocks};
  return options;
}

// An engine on a simulated model.
struct SimulatedBench : EngineDriver {
  explicit SimulatedBench(SimulatedModelOptions options,
                          const Tokenizer* tokenizer = nullptr,
                          EngineOptions engine_options = {})
      : EngineDriver(engine),
        model(std::move(options), &clock),
        engine(model, tokenizer, engine_options, clock) {}

  ManualClock clock;
  SimulatedModel model;
  Engine engine;
};

inline Request greedy_request(std::vector<int32_t> prompt, int64_t max_tokens) {
  Request request;
  request.prompt = std::move(prompt);
  request.max_tokens = max_tokens;
  request.sampling.temperature = 0;
  return request;
}

}  // namespace quern
