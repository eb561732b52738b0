#include "quant/scale_search.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/check.h"
#include "base/function_ref.h"
#include "quant/lanes.h"
#include "quant/objective.h"
#include "quant/rounding.h"

namespace quern {
namespace {

constexpr int kGrid = 20;
constexpr int kMaxGroup = 128;
constexpr int64_t kSampledRows = 256;  // of each matrix: the cost of a row is the cost of a matmul
constexpr float kLeastScale = 1e-4f;
constexpr int64_t kRowsPerChunk = 16;

// Mean over the rows of all consumers of |w| relative to the largest of its group.
std::vector<float> weight_magnitude(const ScaleProblem& problem) {
  const auto n = static_cast<size_t>(problem.gram.shape[0]);
  std::vector<double> sums(n, 0.0);
  double rows = 0;
  for (const Tensor& w : problem.consumers) {
    for (int64_t row = 0; row < w.rows(); ++row) {
      const float* values = w.f32_row(row);
      for (size_t begin = 0; begin < n; begin += static_cast<size_t>(problem.group_size)) {
        const size_t end = begin + static_cast<size_t>(problem.group_size);
        float largest = 1e-6f;
        for (size_t i = begin; i < end; ++i) largest = std::max(largest, std::fabs(values[i]));
        for (size_t i = begin; i < end; ++i)
          sums[i] += static_cast<double>(std::fabs(values[i]) / largest);
      }
    }
    rows += static_cast<double>(w.rows());
  }
  std::vector<float> mean(n);
  for (size_t i = 0; i < n; ++i) mean[i] = static_cast<float>(sums[i] / std::max(rows, 1.0));
  return mean;
}

// Replaces every number by the mean of its class.
void tie(std::vector<float>& values, const ScaleProblem& problem) {
  if (problem.class_of.empty()) return;
  std::vector<double> sums(static_cast<size_t>(problem.classes), 0.0);
  std::vector<double> counts(sums.size(), 0.0);
  for (size_t i = 0; i < values.size(); ++i) {
    const auto c = static_cast<size_t>(problem.class_of[i]);
    sums[c] += static_cast<double>(values[i]);
    counts[c] += 1.0;
  }
  for (size_t i = 0; i < values.size(); ++i) {
    const auto c = static_cast<size_t>(problem.class_of[i]);
    values[i] = static_cast<float>(sums[c] / counts[c]);
  }
}

// Normalises to sqrt(max * min) = 1; what is no positive number becomes 1.
void normalise(std::vector<float>& scales) {
  float low = INFINITY;
  float high = 0.0f;
  for (float& s : scales) {
    if (!std::isfinite(s) || s <= 0.0f) s = 1.0f;
    low = std::min(low, s);
    high = std::max(high, s);
  }
  const float middle = std::sqrt(low) * std::sqrt(high);
  for (float& s : scales) s /= middle;
}

std::vector<float> candidate(const std::vector<float>& x, const std::vector<float>& w, float r) {
  std::vector<float> s(x.size());
  for (size_t i = 0; i < s.size(); ++i) {
    s[i] = std::pow(x[i], r);
    if (!w.empty()) s[i] /= std::pow(w[i], 1.0f - r) + 1e-4f;
    s[i] = std::max(s[i], kLeastScale);
  }
  normalise(s);
  return s;
}

// errors = Q(w * s) / s - w for one group.
QUERN_CLONES
void group_errors(float* errors, const float* w, const float* s, int count) {
  std::array<float, kMaxGroup> scaled;
  for (int i = 0; i < count; ++i) scaled[static_cast<size_t>(i)] = w[i] * s[i];
  const Range range = range_of(scaled.data(), count);
  const GroupGrid grid = fit_grid(range.low, range.high);
  for (int i = 0; i < count; ++i)
    errors[i] = nearest(scaled[static_cast<size_t>(i)], grid) / s[i] - w[i];
}

void rounding_errors(
    ThreadPool& pool, Tensor errors, Tensor w, const std::vector<float>& s, int group_size) {
  QUERN_CHECK(group_size <= kMaxGroup);
  pool.for_each_chunk(w.rows(), kRowsPerChunk, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t at = 0; at < w.shape[1]; at += group_size)
        group_errors(errors.f32_row(row) + at, w.f32_row(row) + at, s.data() + at, group_size);
    }
  });
}

// Evenly spaced rows of every consumer, each standing for `weight` of them.
struct SampledConsumer {
  FloatMatrix rows;
  double weight;
};

std::vector<SampledConsumer> sample_consumers(const ScaleProblem& problem) {
  std::vector<SampledConsumer> samples;
  for (const Tensor& w : problem.consumers) {
    FloatMatrix rows = sample_rows(w, kSampledRows);
    const double weight = static_cast<double>(w.rows()) / static_cast<double>(rows.rows());
    samples.push_back({std::move(rows), weight});
  }
  return samples;
}

double cost_of(ThreadPool& pool,
               const std::vector<SampledConsumer>& samples,
               const ScaleProblem& problem,
               const std::vector<float>& scales) {
  double cost = 0;
  for (const SampledConsumer& sample : samples) {
    const FloatMatrix& w = sample.rows;
    FloatMatrix errors(w.rows(), w.columns());
    rounding_errors(pool, errors.tensor(), w.tensor(), scales, problem.group_size);
    cost += sample.weight * total_cost(pool, errors.tensor(), problem.gram, Operands::kBF16);
  }
  return cost;
}

// The search for one form of candidates, without or with weight magnitudes: every second step of
// the grid, then both neighbours of the best of them, because the cost is smooth in r.
class ExponentSearch {
 public:
  ExponentSearch(FunctionRef<double(const std::vector<float>&)> cost_of,
                 const std::vector<float>& x,
                 const std::vector<float>& w,
                 ScaleChoice& best)
      : cost_of_(cost_of), x_(x), w_(w), best_(best) {}

  void run() {
    for (int step = 0; step < kGrid; step += 2) attempt(step);
    const int middle = best_step_;
    for (const int step : {middle - 1, middle + 1}) attempt(step);
  }

 private:
  void attempt(int step) {
    if (step < 0 || step >= kGrid) return;
    std::vector<float> s = candidate(x_, w_, static_cast<float>(step) / kGrid);
    const double cost = cost_of_(s);
    if (cost < best_cost_) {
      best_cost_ = cost;
      best_step_ = step;
    }
    if (cost < best_.cost) {
      best_.cost = cost;
      best_.scales = std::move(s);
    }
  }

  FunctionRef<double(const std::vector<float>&)> cost_of_;
  const std::vector<float>& x_;
  const std::vector<float>& w_;
  ScaleChoice& best_;
  double best_cost_ = INFINITY;
  int best_step_ = 0;
};

}  // namespace

ScaleChoice search_scales(ThreadPool& pool, const ScaleProblem& problem) {
  const auto n = static_cast<size_t>(problem.gram.shape[0]);
  QUERN_CHECK(problem.magnitude.size() == n);
  const std::vector<SampledConsumer> samples = sample_consumers(problem);
  const auto cost_of_scales = [&](const std::vector<float>& scales) {
    return cost_of(pool, samples, problem, scales);
  };
  std::vector<float> x = problem.magnitude;
  std::vector<float> w = weight_magnitude(problem);
  tie(x, problem);
  tie(w, problem);
  ScaleChoice best;
  best.scales.assign(n, 1.0f);
  best.identity_cost = cost_of_scales(best.scales);
  best.cost = best.identity_cost;
  ExponentSearch(cost_of_scales, x, {}, best).run();
  ExponentSearch(cost_of_scales, x, w, best).run();
  return best;
}

std::vector<int32_t> grouped_query_classes(int heads, int kv_heads, int head_dim) {
  QUERN_CHECK(kv_heads > 0 && heads % kv_heads == 0);
  std::vector<int32_t> classes(static_cast<size_t>(heads * head_dim));
  for (int head = 0; head < heads; ++head) {
    const int kv_head = head / (heads / kv_heads);
    for (int i = 0; i < head_dim; ++i) {
      classes[static_cast<size_t>(head) * static_cast<size_t>(head_dim) + static_cast<size_t>(i)] =
          kv_head * head_dim + i;
    }
  }
  return classes;
}

double scaled_rounding_cost(ThreadPool& pool,
                            const ScaleProblem& problem,
                            const std::vector<float>& scales) {
  return cost_of(pool, sample_consumers(problem), problem, scales);
}

}  // namespace quern
