#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

#include <gtest/gtest.h>

#include "base/random.h"

namespace quern {
namespace {

std::vector<float> random_logits(size_t vocabulary, uint64_t seed, float range) {
  std::vector<float> logits(vocabulary);
  for (size_t i = 0; i < vocabulary; ++i) {
    logits[i] = static_cast<float>(random_uniform(seed, 9, i)) * range - range / 3;
  }
  return logits;
}

// The distribution that sampler.h states, by full sorts in double precision.
std::vector<double> exact_distribution(const std::vector<float>& logits,
                                       const SamplingParams& params) {
  std::vector<double> weight(logits.size());
  const double greatest = *std::max_element(logits.begin(), logits.end());
  for (size_t i = 0; i < logits.size(); ++i) {
    weight[i] = std::exp((logits[i] - greatest) / static_cast<double>(params.temperature));
    if (weight[i] < static_cast<double>(params.min_p)) weight[i] = 0;
  }
  std::vector<size_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return weight[a] > weight[b]; });
  if (params.top_k > 0) {
    for (size_t i = static_cast<size_t>(params.top_k); i < order.size(); ++i) weight[order[i]] = 0;
  }
  const double total = std::accumulate(weight.begin(), weight.end(), 0.0);
  double sum = 0;
  for (const size_t token : order) {
    if (sum >= static_cast<double>(params.top_p) * total) weight[token] = 0;
    sum += weight[token];
  }
  const double kept = std::accumulate(weight.begin(), weight.end(), 0.0);
  for (double& w : weight) w /= kept;
  return weight;
}

// Chi-square of `draws` samples over the tokens with an expectation of at least 5, and the number
// of degrees of freedom. Fails at once on a token of probability zero.
void expect_distributed_as_stated(const std::vector<float>& logits, SamplingParams params) {
  constexpr int kDraws = 20000;
  const std::vector<double> exact = exact_distribution(logits, params);
  Sampler sampler(static_cast<int64_t>(logits.size()));
  std::vector<int> counts(logits.size(), 0);
  const std::vector<int32_t> tokens = {0};
  for (int i = 0; i < kDraws; ++i) {
    params.seed = static_cast<uint64_t>(i);
    const auto sampled = sampler.sample(logits, {params, tokens, 1, {}, {}});
    ASSERT_TRUE(sampled);
    ASSERT_GT(exact[static_cast<size_t>(sampled->token)], 0.0) << "token " << sampled->token;
    ++counts[static_cast<size_t>(sampled->token)];
  }
  double chi_square = 0, rest_expected = 0, rest_seen = 0;
  int cells = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const double expectation = exact[i] * kDraws;
    if (expectation < 5) {
      rest_expected += expectation;
      rest_seen += counts[i];
      continue;
    }
    chi_square += (counts[i] - expectation) * (counts[i] - expectation) / expectation;
    ++cells;
  }
  if (rest_expected >= 5) {
    chi_square += (rest_seen - rest_expected) * (rest_seen - rest_expected) / rest_expected;
    ++cells;
  }
  // The mean of chi-square is its degrees of freedom n, its deviation sqrt(2 n): 5 deviations.
  const double n = std::max(1, cells - 1);
  EXPECT_LT(chi_square, n + 5 * std::sqrt(2 * n));
}

int32_t sample_token(const std::vector<float>& logits,
                     const SamplingParams& params,
                     const std::vector<int32_t>& tokens = {0},
                     const std::vector<int32_t>& banned = {}) {
  Sampler sampler(static_cast<int64_t>(logits.size()));
  const auto sampled = sampler.sample(logits, {params, tokens, 1, banned, {}});
  EXPECT_TRUE(sampled);
  return sampled ? sampled->token : -1;
}

TEST(Sampler, TakesTheLowestIdOfTheGreatestWhenGreedy) {
  EXPECT_EQ(sample_token({1, 5, 5, 2}, {.temperature = 0}), 1);
  EXPECT_EQ(sample_token({-3, -1, -2, -1}, {.temperature = 0}), 1);
  EXPECT_EQ(sample_token({-0.0f, 0.0f}, {.temperature = 0}), 0);
}

TEST(Sampler, FollowsTheSoftmaxAtAnyTemperature) {
  const std::vector<float> logits = random_logits(50, 1, 6);
  for (const float temperature : {0.3f, 1.0f, 2.5f}) {
    expect_distributed_as_stated(logits, {.temperature = temperature});
  }
}

TEST(Sampler, FollowsItsFiltersAlone) {
  const std::vector<float> logits = random_logits(60, 2, 5);
  expect_distributed_as_stated(logits, {.top_k = 7});
  expect_distributed_as_stated(logits, {.top_p = 0.6f});
  expect_distributed_as_stated(logits, {.min_p = 0.2f});
}

TEST(Sampler, FollowsItsFiltersTogether) {
  const std::vector<float> logits = random_logits(2000, 3, 9);
  expect_distributed_as_stated(logits,
                               {.temperature = 0.8f, .top_k = 40, .top_p = 0.9f, .min_p = 0.05f});
  expect_distributed_as_stated(logits, {.temperature = 1.3f, .top_k = 100, .top_p = 0.5f});
}

TEST(Sampler, KeepsExactlyKTokensLowestIdsAmongEquals) {
  const std::vector<float> logits = {1, 1, 1, 1, 1, 0};
  std::set<int32_t> seen;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    seen.insert(sample_token(logits, {.top_k = 3, .seed = seed}));
  }
  EXPECT_EQ(seen, (std::set<int32_t>{0, 1, 2}));
}

TEST(Sampler, KeepsTheSmallestSetThatReachesTopP) {
  // Probabilities 0.4, 0.3, 0.2, 0.1.
  const std::vector<float> logits = {std::log(0.1f), std::log(0.2f), std::log(0.3f),
                                     std::log(0.4f)};
  const auto kept = [&](float top_p) {
    std::set<int32_t> seen;
    for (uint64_t seed = 0; seed < 300; ++seed) {
      seen.insert(sample_token(logits, {.top_p = top_p, .seed = seed}));
    }
    return seen;
  };
  EXPECT_EQ(kept(0.39f), (std::set<int32_t>{3}));
  EXPECT_EQ(kept(0.41f), (std::set<int32_t>{2, 3}));
  EXPECT_EQ(kept(0.69f), (std::set<int32_t>{2, 3}));
  EXPECT_EQ(kept(0.71f), (std::set<int32_t>{1, 2, 3}));
  EXPECT_EQ(kept(1e-6f), (std::set<int32_t>{3}));
  EXPECT_EQ(kept(0.999f), (std::set<int32_t>{0, 1, 2, 3}));
}

// The kept set is that of a full sort for every random row, k and p.
TEST(Sampler, SelectsTheSameSetAsAFullSort) {
  for (uint64_t round = 0; round < 60; ++round) {
    const size_t vocabulary = 20 + random_bits(4, 0, round) % 3000;
    std::vector<float> logits =
        random_logits(vocabulary, round, static_cast<float>(random_uniform(4, 1, round)) * 30);
    SamplingParams params;
    params.top_k = static_cast<int32_t>(random_bits(4, 2, round) % 50);
    params.top_p = static_cast<float>(0.05 + 0.9 * random_uniform(4, 3, round));
    params.temperature = static_cast<float>(0.1 + 3 * random_uniform(4, 4, round));
    if (round % 3 == 0) {
      for (float& logit : logits) logit = std::round(logit);  // many equals
    }
    const std::vector<double> exact = exact_distribution(logits, params);
    Sampler sampler(static_cast<int64_t>(vocabulary));
    const std::vector<int32_t> tokens = {0};
    for (params.seed = 0; params.seed < 200; ++params.seed) {
      const auto sampled = sampler.sample(logits, {params, tokens, 1, {}, {}});
      ASSERT_TRUE(sampled);
      ASSERT_GT(exact[static_cast<size_t>(sampled->token)], 0.0)
          << "round " << round << " token " << sampled->token;
    }
  }
}

TEST(Sampler, DependsOnSeedStreamAndPosition) {
  const std::vector<float> logits(1000, 0.0f);
  const SamplingParams params{.seed = 1, .stream = 2};
  const int32_t token = sample_token(logits, params, {5, 6});
  EXPECT_EQ(sample_token(logits, params, {7, 8}), token);  // the logits alone tell prompts apart
  EXPECT_NE(sample_token(logits, params, {5, 6, 7}), token);
  EXPECT_NE(sample_token(logits, {.seed = 2, .stream = 2}, {5, 6}), token);
  EXPECT_NE(sample_token(logits, {.seed = 1, .stream = 3}, {5, 6}), token);
}

TEST(Sampler, IsUntouchedByTheCallsBefore) {
  const std::vector<float> logits = random_logits(500, 8, 4);
  const std::vector<int32_t> tokens = {3, 4, 4, 5};
  const SamplingParams params{.top_p = 0.9f,
                              .repetition_penalty = 1.3f,
                              .presence_penalty = 0.5f,
                              .frequency_penalty = 0.5f,
                              .seed = 77};
  Sampler used(500);
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const std::vector<float> other = random_logits(500, seed, 10);
    const SamplingParams other_params{.top_k = 3, .frequency_penalty = 2, .seed = seed};
    ASSERT_TRUE(used.sample(other, {other_params, tokens, 0, {}, {}}));
    Sampler fresh(500);
    const auto a = used.sample(logits, {params, tokens, 1, {}, {}});
    const auto b = fresh.sample(logits, {params, tokens, 1, {}, {}});
    ASSERT_TRUE(a && b);
    EXPECT_EQ(a->token, b->token);
  }
}

TEST(Sampler, AppliesTheRepetitionPenaltyOnceToPromptAndOutput) {
  // Token 0 is in the prompt (twice), 1 in the output: 4 / 2 = 2, -1 * 2 = -2.
  const std::vector<int32_t> tokens = {0, 0, 1};
  EXPECT_EQ(sample_token({4.0f, -1.0f, 2.1f}, {.temperature = 0, .repetition_penalty = 2}, tokens),
            2);
  EXPECT_EQ(sample_token({4.0f, -1.0f, 1.9f}, {.temperature = 0, .repetition_penalty = 2}, tokens),
            0);
  EXPECT_EQ(
      sample_token({-9.0f, -1.0f, -1.9f}, {.temperature = 0, .repetition_penalty = 2}, tokens), 2);
  EXPECT_EQ(
      sample_token({-9.0f, -1.0f, -2.1f}, {.temperature = 0, .repetition_penalty = 2}, tokens), 1);
}

TEST(Sampler, PenalisesOutputAloneByPresenceAndCount) {
  // Output: token 1 twice, token 2 once. The prompt's token 0 is not counted.
  const std::vector<int32_t> tokens = {0, 1, 1, 2};
  const SamplingParams presence{.temperature = 0, .presence_penalty = 1};
  EXPECT_EQ(sample_token({1.0f, 1.9f, 1.95f}, presence, tokens), 0);
  EXPECT_EQ(sample_token({0.0f, 1.9f, 1.95f}, presence, tokens), 2);
  const SamplingParams frequency{.temperature = 0, .frequency_penalty = 1};
  EXPECT_EQ(sample_token({0.0f, 2.5f, 1.4f}, frequency, tokens), 1);  // 0, 0.5, 0.4
  EXPECT_EQ(sample_token({0.0f, 2.3f, 1.4f}, frequency, tokens), 2);  // 0, 0.3, 0.4
}

TEST(Sampler, NeverChoosesABannedToken) {
  EXPECT_EQ(sample_token({1, 9, 8}, {.temperature = 0}, {0}, {1}), 2);
  for (uint64_t seed = 0; seed < 100; ++seed) {
    EXPECT_NE(sample_token({1, 9, 1}, {.seed = seed}, {0}, {1}), 1);
  }
}

TEST(Sampler, RefusesRowsThatAreNotFiniteOrFullyBanned) {
  Sampler sampler(2);
  const SamplingParams params;
  const std::vector<int32_t> tokens = {0};
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float bad : {infinity, -infinity, std::numeric_limits<float>::quiet_NaN()}) {
    const std::vector<float> logits = {1.0f, bad};
    EXPECT_FALSE(sampler.sample(logits, {params, tokens, 1, {}, {}}));
  }
  const std::vector<int32_t> both = {0, 1};
  EXPECT_FALSE(sampler.sample(std::vector<float>{1, 2}, {params, tokens, 1, both, {}}));
}

TEST(Sampler, SurvivesExtremeLogitsAndTemperatures) {
  EXPECT_EQ(sample_token({3e38f, -3e38f}, {.temperature = 1e-30f}), 0);
  EXPECT_EQ(sample_token({-3e38f, 3e38f, 0}, {.temperature = 100, .top_p = 0.5f}), 1);
  EXPECT_EQ(sample_token({1, 2, 1}, {.min_p = 1.0f}), 1);
  EXPECT_EQ(sample_token({1, 2, 1}, {.top_k = 1}), 1);
}

TEST(Sampler, ReportsTheModelsOwnLogprobs) {
  const std::vector<float> logits = {std::log(0.1f), std::log(0.2f), std::log(0.3f),
                                     std::log(0.4f)};
  Sampler sampler(4);
  const SamplingParams params{.temperature = 0, .presence_penalty = 2};
  const std::vector<int32_t> tokens = {0, 3};
  const auto sampled = sampler.sample(logits, {params, tokens, 1, {}, 3});
  ASSERT_TRUE(sampled && sampled->logprobs);
  EXPECT_EQ(sampled->token, 2);
  EXPECT_NEAR(sampled->logprobs->chosen, std::log(0.3), 1e-6);
  ASSERT_EQ(sampled->logprobs->top.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(sampled->logprobs->top[i].token, 3 - static_cast<int32_t>(i));
    EXPECT_NEAR(sampled->logprobs->top[i].logprob, std::log(0.4 - 0.1 * static_cast<double>(i)),
                1e-6);
  }
  const auto none = sampler.sample(logits, {params, tokens, 1, {}, 0});
  ASSERT_TRUE(none && none->logprobs);
  EXPECT_TRUE(none->logprobs->top.empty());
}

TEST(Sampler, AddsTheBiasBeforeThePenalties) {
  const std::vector<float> logits = {1.0f, 2.0f, 0.5f};
  const std::vector<int32_t> tokens = {2};
  const std::vector<LogitBias> bias = {{2, 3.0f}};
  SamplingParams params;
  params.temperature = 0;
  Sampler sampler(3);
  const auto pick = [&] {
    return sampler.sample(logits, {.params = params, .tokens = tokens, .bias = bias})->token;
  };
  EXPECT_EQ(pick(), 2);
  params.repetition_penalty = 2;  // (0.5 + 3) / 2 < 2, while 0.5 / 2 + 3 were more
  EXPECT_EQ(pick(), 1);
}

TEST(Sampler, ChoosesOnlyWhatTheMaskAllows) {
  const std::vector<float> logits = random_logits(70, 4, 8);
  std::vector<uint32_t> mask = {0xffffffffu, 0x0000f000u, 0x00000021u};
  const std::vector<int32_t> tokens = {0};
  Sampler sampler(70);
  SamplingParams params;
  params.temperature = 4;
  std::set<int32_t> seen;
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    params.seed = seed;
    const auto sampled =
        sampler.sample(logits, {.params = params, .tokens = tokens, .allowed = mask});
    ASSERT_TRUE(sampled);
    const auto token = static_cast<size_t>(sampled->token);
    ASSERT_TRUE((mask[token / 32] >> (token % 32) & 1) != 0) << "token " << token;
    seen.insert(sampled->token);
  }
  EXPECT_GT(seen.size(), 20u);
  EXPECT_EQ(seen.count(69), 1u);
  mask = {0, 0, 0xffffffc0u};  // nothing of the vocabulary
  EXPECT_FALSE(sampler.sample(logits, {.params = params, .tokens = tokens, .allowed = mask}));
}

TEST(LogprobsOf, RefusesWhatIsNotFinite) {
  std::vector<float> logits = {1, 2, 3};
  ASSERT_TRUE(logprobs_of(logits, 1, 2));
  EXPECT_EQ(logprobs_of(logits, 1, 2)->top[0].token, 2);
  logits[0] = std::numeric_limits<float>::infinity();
  EXPECT_FALSE(logprobs_of(logits, 1, 2));
}

}  // namespace
}  // namespace quern
