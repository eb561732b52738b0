// Log probabilities to compare with, for the tests of this folder.
#pragma once

#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

#include "engine/test_bench.h"

namespace quern {

// The model's logprobs of each token of `tokens` after those before it, by asking it for one row at
// a time.
inline std::vector<Logprobs> logprobs_one_by_one(const std::vector<int32_t>& tokens, int32_t top) {
  std::vector<Logprobs> all;
  for (size_t i = 1; i < tokens.size(); ++i) {
    SimulatedBench bench(small_model(16));
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

inline void expect_equal(const std::vector<Logprobs>& a, const std::vector<Logprobs>& b) {
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

}  // namespace quern
