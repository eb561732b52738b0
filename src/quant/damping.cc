#include "quant/damping.h"

#include <cmath>
#include <vector>

#include "quant/factor.h"
#include "quant/objective.h"

namespace quern {
namespace {

constexpr int64_t kSampledRows = 256;  // of each matrix
constexpr int kSteps = 6;
constexpr float kStep = 4.0f;

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
                             float least) {
  if (inputs.held_out == nullptr || inputs.kind == CrossKind::kNone) return least;
  std::vector<SampledRows> samples;
  for (const Tensor& w : consumers) samples.push_back(sample_pulls(pool, w, inputs));
  const FloatMatrix factor(inputs.train->gram.rows(), inputs.train->gram.columns());
  float best = least;
  double best_cost = INFINITY;
  float damping = least;
  for (int step = 0; step < kSteps; ++step, damping *= kStep) {
    const double cost = QUERN_TRY(held_out_cost(pool, samples, inputs, damping, factor.tensor()));
    if (!(cost < best_cost)) break;
    best_cost = cost;
    best = damping;
  }
  return best;
}

}  // namespace quern
