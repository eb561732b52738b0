#include "quant/layer_rounder.h"

#include "base/check.h"
#include "kernels/dense.h"
#include "quant/clip_search.h"
#include "quant/guard.h"
#include "quant/objective.h"
#include "quant/rounding.h"

namespace quern {
namespace {

double sum_of(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum;
}

// What the cost of d leaves out: the rows' cost at d = 0, summed.
double constant_cost(ThreadPool& pool, Tensor w, const LayerInputs& inputs, const FloatMatrix& b) {
  switch (inputs.kind) {
    case CrossKind::kNone:
      return 0;
    case CrossKind::kInput:  // mean |w (x_full - x)|^2
      return total_cost(pool, w, inputs.held_out_difference->gram.tensor());
    case CrossKind::kOutput:
      break;
  }
  // mean (t - w x)^2 = mean t^2 - w . (mean t x + b), because b = mean t x - w H.
  const Statistics& statistics = *inputs.held_out;
  double sum = sum_of(statistics.target_squares);
  for (int64_t row = 0; row < w.rows(); ++row) {
    const float* values = w.f32_row(row);
    for (int64_t i = 0; i < w.shape[1]; ++i) {
      const double both =
          static_cast<double>(statistics.cross.row(row)[i]) + static_cast<double>(b.row(row)[i]);
      sum -= static_cast<double>(values[i]) * both;
    }
  }
  return sum;
}

// d = v - w for v, what `rounded` stands for.
FloatMatrix difference(ThreadPool& pool, const GroupedWeight& rounded, Tensor w) {
  FloatMatrix d(rounded.rows, rounded.columns);
  dequantize(pool, rounded, d.tensor());
  subtract(pool, d.tensor(), w);
  return d;
}

// The same for plain rounding of the weights before scales were folded into their columns.
FloatMatrix plain_difference(ThreadPool& pool,
                             Tensor w,
                             const std::vector<float>* scales,
                             int group_size) {
  if (scales == nullptr) return difference(pool, round_to_nearest(pool, w, group_size), w);
  FloatMatrix d = copy_of(w);
  std::vector<float> inverse(scales->size());
  for (size_t i = 0; i < inverse.size(); ++i) inverse[i] = 1.0f / (*scales)[i];
  scale_columns(pool, d.tensor(), inverse);
  dequantize(pool, round_to_nearest(pool, d.tensor(), group_size), d.tensor());
  scale_columns(pool, d.tensor(), *scales);
  subtract(pool, d.tensor(), w);
  return d;
}

}  // namespace

FloatMatrix pull_of(ThreadPool& pool, Tensor w, Tensor gram, Tensor cross, CrossKind kind) {
  if (kind == CrossKind::kNone) return {};
  if (kind == CrossKind::kOutput) {
    FloatMatrix b = copy_of(cross);
    gemm_f32(pool, b.tensor(), w, gram, {.alpha = -1.0f, .beta = 1.0f});
    return b;
  }
  FloatMatrix b(w.rows(), w.shape[1]);
  gemm_f32(pool, b.tensor(), w, cross, {});
  return b;
}

GroupedWeight LayerRounder::choose(Tensor w, const LayerInputs& inputs) const {
  if (!method.clips || inputs.train == nullptr) return round_to_nearest(pool, w, group_size);
  if (!method.compensates) {
    const auto grids = search_grids(pool, w, inputs.train->gram.tensor(), group_size);
    return round_to_grids(pool, w, grids, group_size);
  }
  QUERN_CHECK(inputs.ordered != nullptr);
  const OrderedGram& ordered = *inputs.ordered;
  const FloatMatrix wanted = reorder_columns(pool, w, ordered.order);
  if (inputs.kind != CrossKind::kNone) {
    const FloatMatrix b =
        pull_of(pool, w, inputs.train->gram.tensor(), inputs.train->cross.tensor(), inputs.kind);
    const FloatMatrix pull = reorder_columns(pool, b.tensor(), ordered.order);
    correct(pool, wanted.tensor(), pull.tensor(), ordered);
  }
  GroupedWeight rounded = round_with_feedback(pool, wanted.tensor(), ordered, group_size);
  refine(pool, rounded, wanted.tensor(), ordered, recipe.refine_sweeps);
  return restore_order(rounded, ordered.order);
}

void LayerRounder::judge(Tensor w,
                         const GroupedWeight& rounded,
                         const LayerInputs& inputs,
                         const FloatMatrix& pull,
                         LinearReport& report) const {
  const Tensor gram = inputs.held_out->gram.tensor();
  const Tensor pull_tensor = pull.tensor();
  const Tensor* b = inputs.kind == CrossKind::kNone ? nullptr : &pull_tensor;
  const double constant = constant_cost(pool, w, inputs, pull);
  const auto rows = static_cast<double>(w.rows());
  const auto mean_cost = [&](const FloatMatrix& d) {
    return (sum_of(row_costs(pool, d.tensor(), gram, b)) + constant) / rows;
  };
  report.signal = mean_signal(pool, w, gram);
  report.rtn_loss = mean_cost(plain_difference(pool, w, inputs.scales, group_size));
  report.loss = mean_cost(difference(pool, rounded, w));
}

GroupedWeight LayerRounder::round(Tensor w, const LayerInputs& inputs, LinearReport& report) const {
  GroupedWeight rounded = choose(w, inputs);
  report.groups = rounded.rows * rounded.groups();
  if (inputs.held_out == nullptr) return rounded;
  const FloatMatrix pull = pull_of(pool, w, inputs.held_out->gram.tensor(),
                                   inputs.held_out->cross.tensor(), inputs.kind);
  const Tensor pull_tensor = pull.tensor();
  report.reverted_groups =
      revert_worse_groups(pool, rounded, w, inputs.held_out->gram.tensor(),
                          inputs.kind == CrossKind::kNone ? nullptr : &pull_tensor);
  judge(w, rounded, inputs, pull, report);
  return rounded;
}

}  // namespace quern
