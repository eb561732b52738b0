#include "quant/damping.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/dense.h"
#include "quant/factor.h"
#include "quant/objective.h"

namespace quern {
namespace {

constexpr int64_t kSampledRows = 256;  // of each matrix
constexpr int kSteps = 4;
constexpr float kStep = 4.0f;

// Some rows of a matrix and what the tokens pull them to.
struct SampledRows {
  FloatMatrix train;
  FloatMatrix held_out;
};

// pull_of() for the rows that `sample` was taken from, every `w.rows() / sample.rows()`-th.
FloatMatrix sampled_pull(ThreadPool& pool,
                         const FloatMatrix& sample,
                         int64_t rows,
                         const Statistics& statistics,
                         CrossKind kind) {
  if (kind == CrossKind::kInput) return pull_of(pool, sample.tensor(), statistics, kind);
  FloatMatrix b(sample.rows(), sample.columns());
  gemm_f32(pool, b.tensor(), sample.tensor(), statistics.gram.tensor(), {.alpha = -1.0f});
  for (int64_t i = 0; i < b.rows(); ++i) {
    const float* cross = statistics.cross.row(i * rows / b.rows());
    for (int64_t c = 0; c < b.columns(); ++c) b.row(i)[c] += cross[c];
  }
  return b;
}

SampledRows sample_rows(ThreadPool& pool, Tensor w, const LayerInputs& inputs) {
  FloatMatrix sample(std::min(kSampledRows, w.rows()), w.shape[1]);
  for (int64_t i = 0; i < sample.rows(); ++i)
    std::copy_n(w.f32_row(i * w.rows() / sample.rows()), w.shape[1], sample.row(i));
  return {sampled_pull(pool, sample, w.rows(), *inputs.train, inputs.kind),
          sampled_pull(pool, sample, w.rows(), *inputs.held_out, inputs.kind)};
}

Result<double> held_out_cost(ThreadPool& pool,
                             const std::vector<SampledRows>& samples,
                             const LayerInputs& inputs,
                             float damping) {
  const FloatMatrix factor = copy_of(inputs.train->gram.tensor());
  damp(factor.tensor(), damping);
  QUERN_TRY(factor_upper(pool, factor.tensor()));
  double sum = 0;
  for (const SampledRows& rows : samples) {
    const FloatMatrix change = copy_of(rows.train.tensor());
    solve_right(pool, change.tensor(), factor.tensor());
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
  for (const Tensor& w : consumers) samples.push_back(sample_rows(pool, w, inputs));
  float best = least;
  double best_cost = INFINITY;
  float damping = least;
  for (int step = 0; step < kSteps; ++step, damping *= kStep) {
    const double cost = QUERN_TRY(held_out_cost(pool, samples, inputs, damping));
    if (!(cost < best_cost)) break;
    best_cost = cost;
    best = damping;
  }
  return best;
}

}  // namespace quern
