#include "quant/evaluate.h"

#include <algorithm>
#include <cmath>
#include <csignal>
#include <vector>

#include <gtest/gtest.h>

#include "base/interrupt.h"
#include "quant/distribution.h"
#include "quant/test_random.h"

namespace quern {
namespace {

constexpr int64_t kVocabulary = 300;

// Answers logits that are a function of the seed, the token and its position alone.
class TableModel final : public Model {
 public:
  TableModel(uint64_t seed, const ModelLimits& limits, int64_t vocabulary = kVocabulary)
      : seed_(seed), limits_(limits) {
    spec_.vocabulary = vocabulary;
    spec_.max_context = 64;
  }

  const ModelSpec& spec() const override { return spec_; }
  const ModelLimits& limits() const override { return limits_; }

  void forward(const Batch& batch, Tensor logits) override {
    ASSERT_LE(static_cast<int64_t>(batch.tokens.size()), limits_.max_batch_tokens);
    ASSERT_EQ(batch.sequences.size(), 1u);
    ASSERT_EQ(batch.sequences[0].position_begin, batch.positions[0]);
    for (size_t i = 0; i < batch.logit_rows.size(); ++i) {
      const auto row = static_cast<size_t>(batch.logit_rows[i]);
      fill(batch.tokens[row], batch.positions[row], logits.f32_row(static_cast<int64_t>(i)));
    }
  }

  void fill(int32_t token, int32_t position, float* out) const {
    const auto stream = static_cast<uint64_t>(token) * 1000 + static_cast<uint64_t>(position);
    for (int64_t v = 0; v < spec_.vocabulary; ++v) {
      out[v] = 3.0f * test::normal(1, stream, static_cast<uint64_t>(v)) +
               0.3f * test::normal(seed_, stream, static_cast<uint64_t>(v));
    }
  }

 private:
  uint64_t seed_;
  ModelLimits limits_;
  ModelSpec spec_;
};

std::vector<int32_t> some_tokens(size_t count) {
  std::vector<int32_t> tokens(count);
  for (size_t i = 0; i < count; ++i)
    tokens[i] = static_cast<int32_t>(random_bits(5, 0, i) % static_cast<uint64_t>(kVocabulary));
  return tokens;
}

EvaluateOptions small_options() { return {.context = 10, .chunk_rows = 4}; }

Result<EvalReport> evaluate_one(Model& model,
                                Model* baseline,
                                ThreadPool& pool,
                                const std::vector<int32_t>& tokens,
                                const EvaluateOptions& options,
                                EvaluateProgress* progress) {
  Model* const models[] = {&model};
  const auto reports = evaluate(models, baseline, pool, tokens, options, progress);
  if (!reports) return reports.error();
  return reports->at(0);
}

std::vector<double> log_softmax(const TableModel& model, int32_t token, int32_t position) {
  std::vector<float> logits(kVocabulary);
  model.fill(token, position, logits.data());
  double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x));
  std::vector<double> out;
  for (const float x : logits) out.push_back(static_cast<double>(x) - std::log(sum));
  return out;
}

TEST(Evaluate, AgreesWithAPlainDoubleImplementation) {
  const ModelLimits limits = evaluation_limits(small_options(), KvDType::kF32);
  TableModel model(2, limits);
  TableModel baseline(3, limits);
  ThreadPool pool(2);
  const std::vector<int32_t> tokens = some_tokens(35);  // three windows and a rest
  const auto report = evaluate_one(model, &baseline, pool, tokens, small_options(), nullptr);
  ASSERT_TRUE(report.has_value());
  std::vector<double> kl;
  double nll = 0;
  double baseline_nll = 0;
  double agreed = 0;
  for (size_t w = 0; w < 3; ++w) {
    for (size_t i = 0; i + 1 < 10; ++i) {
      const int32_t token = tokens[10 * w + i];
      const auto target = static_cast<size_t>(tokens[10 * w + i + 1]);
      const auto p = log_softmax(baseline, token, static_cast<int32_t>(i));
      const auto q = log_softmax(model, token, static_cast<int32_t>(i));
      nll -= q[target];
      baseline_nll -= p[target];
      double sum = 0;
      for (size_t v = 0; v < p.size(); ++v) sum += std::exp(p[v]) * (p[v] - q[v]);
      kl.push_back(sum);
      agreed += std::max_element(p.begin(), p.end()) - p.begin() ==
                        std::max_element(q.begin(), q.end()) - q.begin()
                    ? 1.0
                    : 0.0;
    }
  }
  EXPECT_EQ(report->windows, 3);
  EXPECT_EQ(report->tokens, 27);
  EXPECT_NEAR(report->perplexity, std::exp(nll / 27), 1e-5 * report->perplexity);
  ASSERT_TRUE(report->divergence.has_value());
  EXPECT_NEAR(report->divergence->baseline_perplexity, std::exp(baseline_nll / 27),
              1e-5 * report->perplexity);
  double mean = 0;
  for (const double value : kl) mean += value / 27;
  std::sort(kl.begin(), kl.end());
  EXPECT_NEAR(report->divergence->mean, mean, 1e-5);
  EXPECT_NEAR(report->divergence->median, kl[13], 1e-5);
  EXPECT_NEAR(report->divergence->p99, kl[26], 1e-5);
  EXPECT_NEAR(report->divergence->max, kl[26], 1e-5);
  EXPECT_NEAR(report->divergence->top1_agreement, agreed / 27, 1e-9);
  EXPECT_GT(report->divergence->mean_standard_error, 0);
}

TEST(Evaluate, ManyModelsInOnePassAreScoredAsEachAlone) {
  const ModelLimits limits = evaluation_limits(small_options(), KvDType::kF32);
  TableModel baseline(3, limits);
  TableModel first(2, limits);
  TableModel second(4, limits);
  Model* const models[] = {&first, &second};
  ThreadPool pool(2);
  const std::vector<int32_t> tokens = some_tokens(35);
  for (Model* against : {static_cast<Model*>(&baseline), static_cast<Model*>(nullptr)}) {
    const auto together = evaluate(models, against, pool, tokens, small_options(), nullptr);
    ASSERT_TRUE(together.has_value());
    ASSERT_EQ(together->size(), 2u);
    for (size_t i = 0; i < 2; ++i) {
      const auto alone = evaluate_one(*models[i], against, pool, tokens, small_options(), nullptr);
      ASSERT_TRUE(alone.has_value());
      Json one = alone->to_json();
      Json of_two = together->at(i).to_json();
      one.erase("seconds");
      of_two.erase("seconds");
      EXPECT_EQ(one, of_two);
    }
  }
}

TEST(Evaluate, AModelAgainstItselfHasNoDivergence) {
  const ModelLimits limits = evaluation_limits(small_options(), KvDType::kF32);
  TableModel model(2, limits);
  TableModel same(2, limits);
  ThreadPool pool(1);
  const auto report = evaluate_one(model, &same, pool, some_tokens(20), small_options(), nullptr);
  ASSERT_TRUE(report.has_value());
  EXPECT_LT(report->divergence->mean, 1e-6);
  EXPECT_EQ(report->divergence->top1_agreement, 1.0);
  EXPECT_EQ(report->perplexity, report->divergence->baseline_perplexity);
}

TEST(Evaluate, DoesNotDependOnThreadsOrChunks) {
  std::vector<double> perplexities;
  for (const int threads : {1, 3}) {
    for (const int64_t rows : {1, 3, 100}) {
      const EvaluateOptions options{.context = 10, .chunk_rows = rows};
      TableModel model(2, evaluation_limits(options, KvDType::kF32));
      ThreadPool pool(threads);
      const auto report = evaluate_one(model, nullptr, pool, some_tokens(40), options, nullptr);
      ASSERT_TRUE(report.has_value());
      EXPECT_FALSE(report->divergence.has_value());
      perplexities.push_back(report->perplexity);
    }
  }
  for (const double value : perplexities) EXPECT_EQ(value, perplexities[0]);
}

TEST(Evaluate, StopsAtMaxTokensAndTellsItsProgress) {
  const EvaluateOptions options{.context = 10, .max_tokens = 25, .chunk_rows = 4};
  TableModel model(2, evaluation_limits(options, KvDType::kF32));
  ThreadPool pool(1);
  std::vector<int64_t> told;
  auto tell = [&](int64_t done, int64_t total) {
    EXPECT_EQ(total, 2);
    told.push_back(done);
  };
  EvaluateProgress progress(tell);
  const auto report = evaluate_one(model, nullptr, pool, some_tokens(100), options, &progress);
  ASSERT_TRUE(report.has_value());
  EXPECT_EQ(report->windows, 2);
  EXPECT_EQ(told, (std::vector<int64_t>{1, 2}));
}

TEST(Evaluate, ReportNamesItsKeysAsDocumented) {
  const ModelLimits limits = evaluation_limits(small_options(), KvDType::kF32);
  TableModel model(2, limits);
  TableModel baseline(3, limits);
  ThreadPool pool(1);
  const auto report =
      evaluate_one(model, &baseline, pool, some_tokens(20), small_options(), nullptr);
  ASSERT_TRUE(report.has_value());
  const Json json = report->to_json();
  for (const char* key : {"context", "windows", "tokens", "perplexity", "seconds",
                          "baseline_perplexity", "kl_divergence_nats", "kl_divergence_median_nats",
                          "kl_divergence_p99_nats", "top1_agreement"})
    EXPECT_TRUE(json.contains(key)) << key;
}

// The message of the error of evaluating with `options` a model of `limits`.
std::string failure(const EvaluateOptions& options,
                    const ModelLimits& limits,
                    const std::vector<int32_t>& tokens,
                    int64_t baseline_vocabulary = kVocabulary) {
  TableModel model(2, limits);
  TableModel baseline(3, limits, baseline_vocabulary);
  ThreadPool pool(1);
  const auto report = evaluate_one(model, &baseline, pool, tokens, options, nullptr);
  return report.has_value() ? "" : report.error().message;
}

TEST(Evaluate, RefusesWhatItCannotScore) {
  const EvaluateOptions options = small_options();
  const ModelLimits limits = evaluation_limits(options, KvDType::kF32);
  EXPECT_NE(failure(options, limits, some_tokens(9)).find("9 tokens"), std::string::npos);
  EXPECT_NE(failure({.context = 1}, limits, some_tokens(9)).find("at least 2"), std::string::npos);
  EXPECT_NE(failure({.context = 10, .chunk_rows = 0}, limits, some_tokens(20)).find("chunk_rows"),
            std::string::npos);
  const EvaluateOptions wide{.context = 100};
  EXPECT_NE(
      failure(wide, evaluation_limits(wide, KvDType::kF32), some_tokens(200)).find("model's 64"),
      std::string::npos);
  std::vector<int32_t> foreign = some_tokens(20);
  foreign[7] = kVocabulary;
  EXPECT_NE(failure(options, limits, foreign).find("token 300 at position 7"), std::string::npos);
  EXPECT_NE(failure(options, limits, some_tokens(20), 299).find("vocabulary has 299"),
            std::string::npos);
  ModelLimits few = limits;
  few.max_logit_rows = 3;
  EXPECT_NE(failure(options, few, some_tokens(20)).find("evaluation needs 1 and 4"),
            std::string::npos);
}

TEST(EvaluateDeathTest, StopsWhenInterrupted) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        install_interrupt_handler();
        std::raise(SIGINT);
        const EvaluateOptions options = small_options();
        const std::string message =
            failure(options, evaluation_limits(options, KvDType::kF32), some_tokens(20));
        std::exit(message.find("interrupted") != std::string::npos ? 7 : 0);
      },
      ::testing::ExitedWithCode(7), "");
}

TEST(Distribution, FindsTheMostLikelyTokenAndItsProbability) {
  const std::vector<float> logits = {1.0f, 3.0f, 3.0f, -200.0f};
  const TokenScore score = score_logits(logits.data(), 4, 0);
  EXPECT_EQ(score.best, 1);
  EXPECT_NEAR(score.nll, std::log(std::exp(1.0) + 2 * std::exp(3.0)) - 1.0, 1e-6);
}

TEST(Distribution, DivergenceOfTwoKnownDistributions) {
  const std::vector<float> p = {std::log(0.75f), std::log(0.25f)};
  const std::vector<float> q = {std::log(0.5f) + 9.0f, std::log(0.5f) + 9.0f};
  const double expected = 0.75 * std::log(1.5) + 0.25 * std::log(0.5);
  EXPECT_NEAR(compare_logits(p.data(), q.data(), 2, 0).divergence, expected, 1e-6);
}

}  // namespace
}  // namespace quern
