#include "quant/damping.h"

#include <cmath>

#include <gtest/gtest.h>

#include "quant/test_random.h"

namespace quern {
namespace {

constexpr int64_t kInputs = 48;
constexpr int64_t kOutputs = 20;

// Statistics of `tokens` tokens whose targets are v x and noise.
Statistics observe(
    ThreadPool& pool, const FloatMatrix& v, uint64_t seed, int64_t tokens, float noise) {
  const FloatMatrix x = test::normal_matrix(seed, tokens, kInputs);
  FloatMatrix t = test::normal_matrix(seed + 1, tokens, kOutputs);
  gemm_f32(pool, t.tensor(), x.tensor(), v.tensor(), {.b = Transpose::kYes, .beta = noise});
  Statistics statistics(kInputs, kOutputs);
  const Tensor target = t.tensor();
  statistics.add(pool, x.tensor(), &target, {});
  statistics.finish(pool);
  return statistics;
}

// `drift`: how far the matrix that made the targets lies from the one to be corrected.
float chosen(int64_t tokens, float noise, float drift = 0, float guess = 0) {
  ThreadPool pool(2);
  const FloatMatrix w = test::normal_matrix(1, kOutputs, kInputs);
  const FloatMatrix v = test::normal_matrix(2, kOutputs, kInputs);
  for (int64_t i = 0; i < kOutputs * kInputs; ++i) v.data()[i] = w.data()[i] + drift * v.data()[i];
  const Statistics train = observe(pool, v, 10, tokens, noise);
  const Statistics held_out = observe(pool, v, 20, 1000, noise);
  const Tensor consumer = w.tensor();
  const LayerInputs inputs{.train = &train, .held_out = &held_out, .kind = CrossKind::kOutput};
  const auto damping = choose_damping(pool, {&consumer, 1}, inputs, {0.02f, guess});
  EXPECT_TRUE(damping.has_value());
  return *damping;
}

TEST(ChooseDamping, DoesNotTrustFewNoisyTokens) {
  EXPECT_EQ(chosen(60, 1.0f), 0.02f * 1024);  // nothing to correct: all that is learnt is noise
}

TEST(ChooseDamping, IsTheSameFromAnyGuess) {
  const float best = chosen(100, 1.0f, 0.15f);
  EXPECT_GT(best, 0.02f);
  EXPECT_LT(best, 0.02f * 1024);
  for (const float guess : {0.001f, 0.02f, 0.08f, 0.32f, 1.28f, 5.12f, 20.48f, 1000.0f, NAN})
    EXPECT_EQ(chosen(100, 1.0f, 0.15f, guess), best) << guess;
}

TEST(ChooseDamping, IsTheLeastWhereTheCorrectionIsReal) {
  ThreadPool pool(2);
  const FloatMatrix w = test::normal_matrix(1, kOutputs, kInputs);
  const FloatMatrix v = test::normal_matrix(2, kOutputs, kInputs);
  const Statistics train = observe(pool, v, 10, 4000, 0.1f);
  const Statistics held_out = observe(pool, v, 20, 1000, 0.1f);
  const Tensor consumer = w.tensor();
  LayerInputs inputs{.train = &train, .held_out = &held_out, .kind = CrossKind::kOutput};
  EXPECT_EQ(*choose_damping(pool, {&consumer, 1}, inputs, {.least = 0.02f}), 0.02f);
  EXPECT_EQ(*choose_damping(pool, {&consumer, 1}, inputs, {0.02f, 0.32f}), 0.02f);
  EXPECT_EQ(*choose_damping(pool, {&consumer, 1}, inputs, {0.02f, 1e9f}), 0.02f);
  inputs.held_out = nullptr;
  EXPECT_EQ(*choose_damping(pool, {&consumer, 1}, inputs, {.least = 0.5f, .guess = 8.0f}), 0.5f);
}

}  // namespace
}  // namespace quern
