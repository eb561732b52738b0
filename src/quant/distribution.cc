#include "quant/distribution.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/exp.h"

namespace quern {
namespace {

constexpr int64_t kRun = 256;  // floats summed before the sum moves on in double

int64_t index_of_max(const float* x, int64_t count) {
  float high = x[0];
  for (int64_t i = 1; i < count; ++i) high = std::max(high, x[i]);
  int64_t at = 0;
  while (x[at] != high && at + 1 < count) ++at;
  return at;
}

// Sums of e^(x - high) and, when y is given, of e^(x - high) * ((x - high) - (y - high_y)).
struct Sums {
  double exponentials = 0;
  double differences = 0;
};

Sums sum_exponentials(const float* x, float high, int64_t count) {
  Sums sums;
  for (int64_t begin = 0; begin < count; begin += kRun) {
    const int64_t end = std::min(count, begin + kRun);
    float lanes[8] = {};
    int64_t i = begin;
    for (; i + 8 <= end; i += 8) {
      for (int64_t k = 0; k < 8; ++k) lanes[k] += exp_negative(x[i + k] - high);
    }
    for (; i < end; ++i) lanes[0] += exp_negative(x[i] - high);
    for (const float lane : lanes) sums.exponentials += static_cast<double>(lane);
  }
  return sums;
}

Sums sum_differences(const float* x, float high, const float* y, float high_y, int64_t count) {
  Sums sums;
  for (int64_t begin = 0; begin < count; begin += kRun) {
    const int64_t end = std::min(count, begin + kRun);
    float lanes[8] = {};
    float moved[8] = {};
    const auto add = [&](int64_t i, int64_t k) {
      const float e = exp_negative(x[i] - high);
      lanes[k] += e;
      moved[k] += e * ((x[i] - high) - (y[i] - high_y));
    };
    int64_t i = begin;
    for (; i + 8 <= end; i += 8) {
      for (int64_t k = 0; k < 8; ++k) add(i + k, k);
    }
    for (; i < end; ++i) add(i, 0);
    for (const float lane : lanes) sums.exponentials += static_cast<double>(lane);
    for (const float lane : moved) sums.differences += static_cast<double>(lane);
  }
  return sums;
}

double nll_of(const float* logits, float high, double exponentials, int32_t target) {
  return std::log(exponentials) - (static_cast<double>(logits[target]) - static_cast<double>(high));
}

}  // namespace

TokenScore score_logits(const float* logits, int64_t vocabulary, int32_t target) {
  const int64_t best = index_of_max(logits, vocabulary);
  const Sums sums = sum_exponentials(logits, logits[best], vocabulary);
  return {.nll = nll_of(logits, logits[best], sums.exponentials, target), .best = best};
}

TokenComparison compare_logits(const float* baseline,
                               const float* model,
                               int64_t vocabulary,
                               int32_t target) {
  TokenComparison out;
  out.model.best = index_of_max(model, vocabulary);
  out.baseline.best = index_of_max(baseline, vocabulary);
  const float high = baseline[out.baseline.best];
  const float high_model = model[out.model.best];
  const Sums sums = sum_differences(baseline, high, model, high_model, vocabulary);
  out.baseline.nll = nll_of(baseline, high, sums.exponentials, target);
  const double model_exponentials = sum_exponentials(model, high_model, vocabulary).exponentials;
  out.model.nll = nll_of(model, high_model, model_exponentials, target);
  // sum p (log p - log q) = sum p (x - y) - log sum e^x + log sum e^y, each less its maximum.
  const double divergence = sums.differences / sums.exponentials - std::log(sums.exponentials) +
                            std::log(model_exponentials);
  out.divergence = std::max(divergence, 0.0);
  return out;
}

}  // namespace quern
