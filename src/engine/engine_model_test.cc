// The engine on a real model and backend: a batch with preemption, chunks and several threads gives
// bit for bit what each request gets alone.
#include <filesystem>
#include <map>
#include <string>
#include <variant>

#include <gtest/gtest.h>

#include "base/random.h"
#include "engine/engine.h"
#include "engine/test_request.h"

namespace quern {
namespace {

constexpr int64_t kRequests = 8;

struct ModelSetup {
  std::string backend = "cpu";
  int threads = 1;
  Precision precision = Precision::kFast;
  KvDType kv_dtype = KvDType::kInt8;
  int64_t kv_blocks = 64;
  int64_t max_batch_tokens = 64;
  int64_t max_prefill_chunk = 0;
  SpeculationOptions speculation = {};
};

struct Answer {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
  bool operator==(const Answer&) const = default;
};

// A loaded golden model with an engine on it.
class LoadedEngine {
 public:
  LoadedEngine(std::string_view golden, const ModelSetup& setup) {
    const auto path = std::filesystem::path(QUERN_SOURCE_DIR) / "tests/golden/model" / golden;
    auto backend = make_backend({.name = setup.backend, .threads = setup.threads, .isa = {}});
    EXPECT_TRUE(backend);
    backend_ = std::move(*backend);
    const auto checkpoint = Checkpoint::open(path);
    EXPECT_TRUE(checkpoint) << (checkpoint ? "" : checkpoint.error().message);
    LoadOptions options;
    options.precision = setup.precision;
    options.limits = {.max_batch_tokens = setup.max_batch_tokens,
                      .max_logit_rows = 2 * kRequests,
                      .kv_blocks = setup.kv_blocks,
                      .kv_dtype = setup.kv_dtype};
    auto model = load_model(**checkpoint, *backend_, options, nullptr);
    EXPECT_TRUE(model) << (model ? "" : model.error().message);
    model_ = std::move(*model);
    engine_.emplace(*model_, nullptr,
                    EngineOptions{.max_sequences = kRequests,
                                  .max_prefill_chunk = setup.max_prefill_chunk,
                                  .speculation = setup.speculation},
                    clock_);
  }

  // Each request's answer, all of them submitted at once.
  std::vector<Answer> run(const std::vector<Request>& requests) {
    std::map<RequestId, size_t> index;
    for (size_t i = 0; i < requests.size(); ++i) {
      const Result<RequestId> id = engine_->submit(copy_of(requests[i]));
      EXPECT_TRUE(id) << (id ? "" : id.error().message);
      if (id) index[*id] = i;
    }
    std::vector<Answer> answers(requests.size());
    while (engine_->step([&](const Event& event) {
      const auto* token = std::get_if<TokenEvent>(&event);
      if (token == nullptr) return;
      Answer& answer = answers[index[token->request]];
      answer.tokens.push_back(token->token);
      answer.logprobs.push_back(token->logprobs->chosen);
    })) {
    }
    EXPECT_TRUE(engine_->consistent());
    return answers;
  }

  Answer run(const Request& request) {
    std::vector<Request> requests;
    requests.push_back(copy_of(request));
    return run(requests)[0];
  }

  EngineStats stats() const { return engine_->stats(); }

 private:
  ManualClock clock_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Model> model_;
  std::optional<Engine> engine_;
};

std::vector<Request> random_requests(int64_t vocabulary) {
  std::vector<Request> requests;
  for (uint64_t i = 0; i < kRequests; ++i) {
    Request request;
    const uint64_t length = 1 + random_bits(21, i, 0) % 60;
    for (uint64_t k = 1; k <= length; ++k) {
      request.prompt.push_back(
          static_cast<int32_t>(random_bits(21, i, k) % static_cast<uint64_t>(vocabulary)));
    }
    request.max_tokens = 40 + static_cast<int64_t>(i) * 5;
    request.eos = EosTokens::kIgnore;
    request.top_logprobs = 0;
    request.sampling = {.temperature = i % 2 == 0 ? 0.0f : 0.9f, .top_p = 0.95f, .seed = i};
    requests.push_back(std::move(request));
  }
  return requests;
}

std::vector<Answer> run_alone(std::string_view golden,
                              const ModelSetup& setup,
                              const std::vector<Request>& requests) {
  std::vector<Answer> answers;
  LoadedEngine engine(golden, setup);
  for (const Request& request : requests) answers.push_back(engine.run(request));
  return answers;
}

class EngineOnModel : public testing::TestWithParam<const char*> {};

TEST_P(EngineOnModel, GivesEachRequestOfABatchWhatItGetsAlone) {
  const std::vector<Request> requests = random_requests(128);
  const std::vector<Answer> alone = run_alone(GetParam(), {}, requests);
  LoadedEngine batch(GetParam(), {});
  EXPECT_EQ(batch.run(requests), alone);
  EXPECT_EQ(batch.stats().preemptions, 0);
}

TEST_P(EngineOnModel, GivesTheSameInChunksAndWithPreemption) {
  const std::vector<Request> requests = random_requests(128);
  const std::vector<Answer> alone = run_alone(GetParam(), {}, requests);
  LoadedEngine tight(GetParam(), {.kv_blocks = 10, .max_batch_tokens = 24, .max_prefill_chunk = 7});
  EXPECT_EQ(tight.run(requests), alone);
  EXPECT_GT(tight.stats().preemptions, 0);
}

TEST_P(EngineOnModel, GivesTheSameFromCachedPrefixes) {
  const std::vector<Request> requests = random_requests(128);
  const std::vector<Answer> alone = run_alone(GetParam(), {}, requests);
  LoadedEngine engine(GetParam(), {});
  for (int i = 0; i < 2; ++i) EXPECT_EQ(engine.run(requests), alone);
  EXPECT_GT(engine.stats().prefix_hits, 0);
}

TEST_P(EngineOnModel, GivesTheSameWithGuesses) {
  std::vector<Request> requests = random_requests(128);
  for (Request& request : requests) request.logit_bias = {{5, 10}, {6, 10}};  // repeats itself
  const std::vector<Answer> alone = run_alone(GetParam(), {}, requests);
  LoadedEngine engine(GetParam(),
                      {.kv_blocks = 14, .speculation = {.max_draft = 5, .min_ngram = 1}});
  EXPECT_EQ(engine.run(requests), alone);
  EXPECT_GT(engine.stats().accepted_tokens, 20);
}

TEST_P(EngineOnModel, GivesTheSameOnTwoThreads) {
  const std::vector<Request> requests = random_requests(128);
  const std::vector<Answer> alone = run_alone(GetParam(), {}, requests);
  LoadedEngine threaded(GetParam(), {.threads = 2});
  EXPECT_EQ(threaded.run(requests), alone);
}

TEST_P(EngineOnModel, GivesTheSameInFloat32OnTheReferenceBackend) {
  const std::vector<Request> requests = random_requests(128);
  ModelSetup setup{.backend = "ref", .precision = Precision::kFloat32, .kv_dtype = KvDType::kF32};
  const std::vector<Answer> alone = run_alone(GetParam(), setup, requests);
  setup.kv_blocks = 10;
  setup.max_batch_tokens = 24;
  LoadedEngine tight(GetParam(), setup);
  EXPECT_EQ(tight.run(requests), alone);
  EXPECT_GT(tight.stats().preemptions, 0);
}

INSTANTIATE_TEST_SUITE_P(Goldens,
                         EngineOnModel,
                         testing::Values("llama", "qwen2", "awq"),
                         [](const auto& golden) { return std::string(golden.param); });

}  // namespace
}  // namespace quern
