// Scores of one predicted distribution, and its distance from another, straight from logits.
#pragma once

#include <cstdint>

namespace quern {

struct TokenScore {
  double nll = 0;    // -log p(target), nats
  int64_t best = 0;  // most likely token; the lowest of equals
};

// logits: [vocabulary], finite. Sums in double over float exponentials (relative error below 3e-7).
TokenScore score_logits(const float* logits, int64_t vocabulary, int32_t target);

struct TokenComparison {
  TokenScore baseline;
  TokenScore model;
  double divergence = 0;  // KL(baseline || model), nats, at least 0
};

TokenComparison compare_logits(const float* baseline,
                               const float* model,
                               int64_t vocabulary,
                               int32_t target);

}  // namespace quern
