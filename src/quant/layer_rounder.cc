#include "quant/layer_rounder.h"

#include <algorithm>

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

constexpr int64_t kJudgedRows = 256;

// Rows of a matrix that stand for all of them in a report.
struct JudgedRows {
  FloatMatrix w;
  FloatMatrix rounded;  // what the codes stand for
  FloatMatrix pull;     // empty for kNone
};

FloatMatrix dequantized_rows(const GroupedWeight& weight, int64_t most) {
  FloatMatrix rows(std::min(most, weight.rows), weight.columns);
  for (int64_t i = 0; i < rows.rows(); ++i)
    widen_row(weight, sampled_row(i, rows.rows(), weight.rows), rows.row(i));
  return rows;
}

// What the cost of d leaves out: the rows' cost at d = 0, summed.
double constant_cost(ThreadPool& pool, const JudgedRows& rows, const LayerInputs& inputs) {
  const Tensor w = rows.w.tensor();
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
  const int64_t all = statistics.cross.rows();
  const FloatMatrix cross = sample_rows(statistics.cross.tensor(), w.rows());
  double sum = 0;
  for (int64_t row = 0; row < w.rows(); ++row) {
    sum += statistics.target_squares[static_cast<size_t>(sampled_row(row, w.rows(), all))];
    const float* values = w.f32_row(row);
    for (int64_t i = 0; i < w.shape[1]; ++i) {
      const double both =
          static_cast<double>(cross.row(row)[i]) + static_cast<double>(rows.pull.row(row)[i]);
      sum -= static_cast<double>(values[i]) * both;
    }
  }
  return sum;
}

// What plain rounding makes of the weights before scales were folded into their columns.
FloatMatrix plainly_rounded(ThreadPool& pool,
                            Tensor w,
                            const std::vector<float>* scales,
                            int group_size) {
  FloatMatrix v = copy_of(w);
  if (scales == nullptr) {
    dequantize(pool, round_to_nearest(pool, w, group_size), v.tensor());
    return v;
  }
  std::vector<float> inverse(scales->size());
  for (size_t i = 0; i < inverse.size(); ++i) inverse[i] = 1.0f / (*scales)[i];
  scale_columns(pool, v.tensor(), inverse);
  dequantize(pool, round_to_nearest(pool, v.tensor(), group_size), v.tensor());
  scale_columns(pool, v.tensor(), *scales);
  return v;
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
    const Tensor gram = inputs.train->gram.tensor();
    const auto grids = search_grids(pool, w, gram, group_size);
    GroupedWeight rounded = round_to_grids(pool, w, grids, group_size);
    restore_size(pool, rounded, w, gram);
    return rounded;
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
  const JudgedRows rows{.w = sample_rows(w, kJudgedRows),
                        .rounded = dequantized_rows(rounded, kJudgedRows),
                        .pull = sample_rows(pull.tensor(), kJudgedRows)};
  const Tensor gram = inputs.held_out->gram.tensor();
  const Tensor pull_tensor = rows.pull.tensor();
  const Tensor* b = inputs.kind == CrossKind::kNone ? nullptr : &pull_tensor;
  const double constant = constant_cost(pool, rows, inputs);
  const auto mean_cost = [&](const FloatMatrix& v) {
    subtract(pool, v.tensor(), rows.w.tensor());
    return (sum_of(row_costs(pool, v.tensor(), gram, b)) + constant) /
           static_cast<double>(v.rows());
  };
  report.signal = mean_signal(pool, rows.w.tensor(), gram);
  report.rtn_loss = mean_cost(plainly_rounded(pool, rows.w.tensor(), inputs.scales, group_size));
  report.loss = mean_cost(rows.rounded);
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
