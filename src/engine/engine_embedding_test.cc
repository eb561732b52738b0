// Embeddings: whatever happens around a request for one, it is the pooled hidden states of its own
// prompt.
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <variant>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/engine.h"
#include "engine/simulated_model.h"
#include "engine/test_bench.h"
#include "tensor/safetensors.h"

namespace quern {
namespace {

using testing::HasSubstr;

struct Bench : EngineDriver {
  explicit Bench(Model& model, const EngineOptions& options = {})
      : EngineDriver(engine), engine(model, nullptr, options, clock) {}

  ManualClock clock;
  Engine engine;
};

Request embedding_request(std::vector<int32_t> prompt, Pooling pooling = Pooling::kMean) {
  Request request;
  request.prompt = std::move(prompt);
  request.max_tokens = 0;
  request.embedding = pooling;
  return request;
}

Request text_request(std::vector<int32_t> prompt, int64_t max_tokens) {
  Request request;
  request.prompt = std::move(prompt);
  request.max_tokens = max_tokens;
  return request;
}

std::vector<int32_t> long_prompt(int32_t length, int32_t first = 1) {
  std::vector<int32_t> prompt = {first};
  for (int32_t i = 1; i < length; ++i) prompt.push_back(i * 7 % 64);
  return prompt;
}

// What the model itself gives for each position of the prompt, pooled.
std::vector<float> pooled(const std::vector<int32_t>& prompt, Pooling pooling) {
  SimulatedModel model(small_model(16), nullptr);
  std::vector<int32_t> rows;
  for (size_t i = 0; i < prompt.size(); ++i) rows.push_back(static_cast<int32_t>(i));
  const std::vector<int32_t> blocks = {3, 2, 1, 0};
  const SequenceSpan span{0, std::ssize(prompt), 0, blocks};
  FloatMatrix hidden(std::ssize(prompt), model.spec().hidden);
  model.forward({.tokens = prompt,
                 .positions = rows,
                 .sequences = {&span, 1},
                 .logit_rows = {},
                 .hidden_rows = rows,
                 .hidden = hidden.tensor()},
                Tensor());
  const int64_t first = pooling == Pooling::kMean ? 0 : hidden.rows() - 1;
  std::vector<float> out;
  for (int64_t c = 0; c < hidden.columns(); ++c) {
    double sum = 0;
    for (int64_t row = first; row < hidden.rows(); ++row) {
      sum += static_cast<double>(hidden.row(row)[c]);
    }
    out.push_back(static_cast<float>(sum / static_cast<double>(hidden.rows() - first)));
  }
  return out;
}

TEST(Embedding, IsThePooledHiddenStatesInWhateverChunks) {
  const std::vector<int32_t> prompt = long_prompt(60);
  for (const Pooling pooling : {Pooling::kMean, Pooling::kLast}) {
    for (const int64_t chunk : {0, 1, 7}) {
      SimulatedModel model(small_model(16), nullptr);
      Bench bench(model, {.max_prefill_chunk = chunk});
      const TestAnswer& answer = bench.run(embedding_request(prompt, pooling));
      EXPECT_EQ(answer.embedding, pooled(prompt, pooling));
      EXPECT_TRUE(answer.tokens.empty());
      ASSERT_TRUE(answer.finished);
      EXPECT_EQ(answer.finished->reason, FinishReason::kStop);
      EXPECT_EQ(answer.finished->usage.prompt_tokens, 60);
      EXPECT_EQ(answer.finished->usage.completion_tokens, 0);
    }
  }
}

TEST(Embedding, IsTheSameAmongAnswersAndOtherEmbeddings) {
  SimulatedModel model(small_model(64), nullptr);
  Bench bench(model, {.max_prefill_chunk = 9, .speculation = {.max_draft = 3, .min_ngram = 1}});
  std::map<RequestId, std::vector<float>> expected;
  for (int32_t i = 0; i < 4; ++i) {
    bench.submit(text_request(long_prompt(5 + i, i), 40));
    const std::vector<int32_t> prompt = long_prompt(1 + 20 * i, i);
    const Pooling pooling = i % 2 == 0 ? Pooling::kMean : Pooling::kLast;
    expected[bench.submit(embedding_request(prompt, pooling))] = pooled(prompt, pooling);
  }
  bench.drain();
  for (const auto& [id, embedding] : expected) EXPECT_EQ(bench.answers[id].embedding, embedding);
}

TEST(Embedding, SumsEachTokenOnceHoweverOftenItWasPreempted) {
  SimulatedModel model(small_model(4), nullptr);
  Bench bench(model, {.max_prefill_chunk = 10});
  for (int32_t i = 0; i < 2; ++i) {
    Request urgent = text_request(long_prompt(50, 10 + i), 60);
    urgent.priority = -1;
    const RequestId id = bench.submit(embedding_request(long_prompt(60, i)));
    for (int k = 0; k < 3; ++k) bench.step();
    bench.submit(std::move(urgent));
    bench.drain();
    EXPECT_EQ(bench.answers[id].embedding, pooled(long_prompt(60, i), Pooling::kMean));
  }
  EXPECT_GT(bench.engine.stats().preemptions, 0);
}

TEST(Embedding, TakesPrefixesFromTheCacheForTheLastTokenAlone) {
  SimulatedModel model(small_model(16), nullptr);
  Bench bench(model);
  const std::vector<int32_t> prompt = long_prompt(60);
  bench.run(text_request(prompt, 2));
  for (const auto& [pooling, cached] : {std::pair(Pooling::kMean, 0), {Pooling::kLast, 32}}) {
    const TestAnswer& answer = bench.run(embedding_request(prompt, pooling));
    EXPECT_EQ(answer.embedding, pooled(prompt, pooling));
    EXPECT_EQ(answer.finished->usage.cached_tokens, cached);
  }
}

TEST(Embedding, LeavesItsPrefixToOthers) {
  SimulatedModel model(small_model(16), nullptr);
  Bench bench(model);
  bench.run(embedding_request(long_prompt(60)));
  const TestAnswer& answer = bench.run(text_request(long_prompt(60), 2));
  EXPECT_EQ(answer.finished->usage.cached_tokens, 32);
}

TEST(Embedding, MayFillTheWholeCache) {
  SimulatedModel model(small_model(2), nullptr);
  Bench bench(model);
  EXPECT_EQ(bench.run(embedding_request(long_prompt(64))).embedding,
            pooled(long_prompt(64), Pooling::kMean));
  EXPECT_FALSE(bench.engine.submit(embedding_request(long_prompt(65))));
}

TEST(Embedding, NeedsNoRoomForLogits) {
  SimulatedModelOptions options = small_model(16);
  options.limits.max_logit_rows = 1;
  SimulatedModel model(options, nullptr);
  Bench bench(model);
  bench.run(embedding_request(long_prompt(60)));
  EXPECT_EQ(bench.engine.stats().steps, 1);
  EXPECT_EQ(model.most_logit_rows(), 0);
}

TEST(Embedding, EndsWhenItIsCancelled) {
  SimulatedModel model(small_model(16), nullptr);
  Bench bench(model, {.max_prefill_chunk = 10});
  const RequestId id = bench.submit(embedding_request(long_prompt(60)));
  bench.step();
  bench.engine.cancel(id);
  bench.drain();
  EXPECT_EQ(bench.answers[id].finished->reason, FinishReason::kCancelled);
  EXPECT_TRUE(bench.answers[id].embedding.empty());
}

TEST(Embedding, FailsAloneWhenItIsNotFiniteOrTheModelThrows) {
  SimulatedModelOptions options = small_model(64);
  options.nan_token = 63;
  options.throw_token = 62;
  SimulatedModel model(options, nullptr);
  Bench bench(model);
  const RequestId good = bench.submit(embedding_request({1, 2, 3}));
  const RequestId not_finite = bench.submit(embedding_request({1, 63, 3}));
  const RequestId thrown = bench.submit(embedding_request({1, 62}));
  const RequestId last = bench.submit(embedding_request({4, 5}));
  bench.drain();
  EXPECT_EQ(bench.answers[good].embedding, pooled({1, 2, 3}, Pooling::kMean));
  EXPECT_EQ(bench.answers[last].embedding, pooled({4, 5}, Pooling::kMean));
  for (const auto& [id, text] : {std::pair(not_finite, "hidden states are not finite"),
                                 std::pair(thrown, "the model failed")}) {
    EXPECT_EQ(bench.answers[id].finished->reason, FinishReason::kError);
    EXPECT_THAT(bench.answers[id].finished->error, HasSubstr(text));
    EXPECT_TRUE(bench.answers[id].embedding.empty());
  }
}

// --- On real models -----------------------------------------------------------------------------

// A golden checkpoint and what transformers answered (tools/make_logit_goldens.py).
class EmbeddingOfModel : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const auto folder = std::filesystem::path(QUERN_SOURCE_DIR) / "tests/golden/model" / GetParam();
    const auto expected = SafetensorsFile::open(folder / "expected.safetensors");
    ASSERT_TRUE(expected);
    const std::vector<int64_t> tokens = read_integers(*expected->find("tokens")).value();
    tokens_.assign(tokens.begin(), tokens.end());
    for (auto* vector : {&mean_, &last_}) {
      const auto& bytes = expected->find(vector == &mean_ ? "hidden_mean" : "hidden_last")->bytes;
      vector->resize(bytes.size() / sizeof(float));
      std::memcpy(vector->data(), bytes.data(), bytes.size());
    }
    backend_ = make_backend({.name = "cpu", .threads = 2, .isa = {}}).value();
    const auto checkpoint = Checkpoint::open(folder).value();
    LoadOptions options;
    options.precision = Precision::kFloat32;
    options.limits = {
        .max_batch_tokens = 64, .max_logit_rows = 8, .kv_blocks = 32, .kv_dtype = KvDType::kF32};
    model_ = load_model(*checkpoint, *backend_, options, nullptr).value();
  }

  std::vector<int32_t> tokens_;
  std::vector<float> mean_, last_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Model> model_;
};

double relative_error(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double gap = 0, largest = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    gap = std::max(gap, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
    largest = std::max(largest, std::abs(static_cast<double>(b[i])));
  }
  return gap / largest;
}

TEST_P(EmbeddingOfModel, AgreesWithTheReferenceImplementation) {
  Bench bench(*model_);
  EXPECT_LE(relative_error(bench.run(embedding_request(tokens_)).embedding, mean_), 1e-4);
  EXPECT_LE(relative_error(bench.run(embedding_request(tokens_, Pooling::kLast)).embedding, last_),
            1e-4);
}

TEST_P(EmbeddingOfModel, IsTheSameBitsInChunksAndInCompany) {
  Bench whole(*model_, {.prefix_caching = PrefixCaching::kOff});
  const std::vector<float> alone = whole.run(embedding_request(tokens_)).embedding;
  for (const int64_t chunk : {1, 7, 33}) {
    Bench bench(*model_, {.max_prefill_chunk = chunk, .prefix_caching = PrefixCaching::kOff});
    bench.submit(text_request({5, 6, 7}, 30));
    bench.submit(embedding_request({9, 8, 7, 6}));
    const RequestId id = bench.submit(embedding_request(tokens_));
    bench.submit(text_request({3}, 30));
    bench.drain();
    EXPECT_EQ(bench.answers[id].embedding, alone) << "chunks of " << chunk;
  }
}

INSTANTIATE_TEST_SUITE_P(Goldens,
                         EmbeddingOfModel,
                         testing::Values("llama", "smollm2", "mistral", "qwen2", "qwen3", "awq"),
                         [](const auto& golden) { return std::string(golden.param); });

}  // namespace
}  // namespace quern
