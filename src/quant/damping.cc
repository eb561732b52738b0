#include "quant/damping.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "quant/factor.h"
#include "quant/objective.h"

namespace quern {
namespace {

constexpr int64_t kSampledRows = 256;  // of each matrix
constexpr int kSteps = 6;
constexpr int kStepBits = 2;  // each is four times the one before

float damping_at(const DampingRange& range, int step) {
  return std::ldexp(range.least, kStepBits * step);
}

int first_step(const DampingRange& range) {
  if (!(range.guess > range.least)) return 0;
  const auto step = static_cast<int>(std::lround(std::log2(range.guess / range.least) / kStepBits));
  return std::clamp(step, 0, kSteps - 1);
}

// What the tokens pull some rows of a matrix to.
struct SampledRows {
  FloatMatrix train;
  FloatMatrix held_out;
};

SampledRows sample_pulls(ThreadPool& pool, Tensor w, const LayerInputs& inputs) {
  const FloatMatrix rows = sample_rows(w, kSampledRows);
  const auto pull = [&](const Statistics& statistics) {
    const Tensor gram = statistics.gram.tensor();
    const Tensor cross = statistics.cross.tensor();
    if (inputs.kind == CrossKind::kInput)
      return pull_of(pool, rows.tensor(), gram, cross, inputs.kind);
    const FloatMatrix cross_rows = sample_rows(cross, kSampledRows);
    return pull_of(pool, rows.tensor(), gram, cross_rows.tensor(), inputs.kind);
  };
  return {pull(*inputs.train), pull(*inputs.held_out)};
}

// `factor`: [inputs, inputs], working memory.
Result<double> held_out_cost(ThreadPool& pool,
                             const std::vector<SampledRows>& samples,
                             const LayerInputs& inputs,
                             float damping,
                             Tensor factor) {
  copy_into(pool, factor, inputs.train->gram.tensor());
  damp(factor, damping);
  QUERN_TRY(factor_upper(pool, factor));
  double sum = 0;
  for (const SampledRows& rows : samples) {
    const FloatMatrix change = copy_of(rows.train.tensor());
    solve_right(pool, change.tensor(), factor);
    const Tensor pull = rows.held_out.tensor();
    for (const double cost :
         row_costs(pool, change.tensor(), inputs.held_out->gram.tensor(), &pull))
      sum += cost;
  }
  return sum;
}

}  // namespace

Result<float> choose_damping(ThreadPool& pool,
                             std::span<const Tensor> consumers,
                             const LayerInputs& inputs,
                             const DampingRange& range) {
  if (inputs.held_out == nullptr || inputs.kind == CrossKind::kNone) return range.least;
  std::vector<SampledRows> samples;
  for (const Tensor& w : consumers) samples.push_back(sample_pulls(pool, w, inputs));
  const FloatMatrix factor(inputs.train->gram.rows(), inputs.train->gram.columns());
  const auto cost_of = [&](int step) {
    return held_out_cost(pool, samples, inputs, damping_at(range, step), factor.tensor());
  };
  const int first = first_step(range);
  int best = first;
  double best_cost = QUERN_TRY(cost_of(best));
  for (const int direction : {1, -1}) {
    for (int step = best + direction; step >= 0 && step < kSteps; step += direction) {
      const double cost = QUERN_TRY(cost_of(step));
      if (!(cost < best_cost)) break;
      best_cost = cost;
      best = step;
    }
    if (best != first) break;
  }
  return damping_at(range, best);
}

}  // namespace quern
