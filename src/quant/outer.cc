#include "quant/outer.h"

#include <algorithm>

#include "base/check.h"
#include "quant/damping.h"
#include "quant/feedback.h"
#include "quant/objective.h"
#include "quant/rounding.h"

namespace quern {
namespace {

constexpr int64_t kSliceRows = 8192;

// Statistics of what the head reads, as LayerInputs points to them.
struct HeadStatistics {
  Statistics train, held_out, held_out_difference;
};

void add_window(const OuterSetup& setup,
                const std::vector<float>& norm,
                const Window& window,
                HeadStatistics& statistics) {
  const int64_t width = setup.spec.hidden;
  ThreadPool& pool = setup.backend.pool();
  const float eps = setup.spec.final_norm.eps;
  FloatMatrix full(window.rows, width);
  setup.backend.rms_norm(full.tensor(), setup.streams.full_rows(window), norm, eps);
  Statistics& sums = window.held_out ? statistics.held_out : statistics.train;
  if (!setup.method.compensates) return sums.add(pool, full.tensor(), nullptr, {});
  FloatMatrix rounded(window.rows, width);
  setup.backend.rms_norm(rounded.tensor(), setup.streams.rounded_rows(window), norm, eps);
  subtract(pool, full.tensor(), rounded.tensor());
  const Tensor difference = full.tensor();
  sums.add(pool, rounded.tensor(), &difference, {});
  if (window.held_out) statistics.held_out_difference.add(pool, difference, nullptr, {});
}

Result<HeadStatistics> head_statistics(const OuterSetup& setup) {
  const int64_t width = setup.spec.hidden;
  const int64_t targets = setup.method.compensates ? width : 0;
  HeadStatistics statistics;
  statistics.train = Statistics(width, targets);
  statistics.held_out = Statistics(width, targets);
  statistics.held_out_difference = Statistics(width, 0);
  const std::vector<float> norm = QUERN_TRY(load_norm(setup.spec.final_norm, setup.checkpoint));
  for (const Window& window : setup.streams.windows) add_window(setup, norm, window, statistics);
  for (Statistics* s : {&statistics.train, &statistics.held_out, &statistics.held_out_difference})
    s->finish(setup.backend.pool());
  return statistics;
}

LayerInputs inputs_of(const OuterSetup& setup, const HeadStatistics& statistics) {
  return {.train = &statistics.train,
          .held_out = statistics.held_out.tokens > 0 ? &statistics.held_out : nullptr,
          .held_out_difference = &statistics.held_out_difference,
          .kind = setup.method.compensates ? CrossKind::kInput : CrossKind::kNone};
}

void append(GroupedWeight& out, const GroupedWeight& slice, int64_t row) {
  std::copy(slice.codes.begin(), slice.codes.end(), out.codes.begin() + row * out.columns);
  std::copy(slice.scales.begin(), slice.scales.end(), out.scales.begin() + row * out.groups());
  std::copy(slice.zeros.begin(), slice.zeros.end(), out.zeros.begin() + row * out.groups());
}

// Means over rows become means over all slices.
void append(LinearReport& out, const LinearReport& slice, double share) {
  out.rtn_loss += slice.rtn_loss * share;
  out.loss += slice.loss * share;
  out.signal += slice.signal * share;
  out.groups += slice.groups;
  out.reverted_groups += slice.reverted_groups;
}

}  // namespace

Result<QuantizedBlock> quantize_outer(const OuterSetup& setup, const OuterMatrix& matrix) {
  LinearSpec source = matrix.linear;
  source.name = matrix.source;
  const FloatMatrix w = QUERN_TRY(read_matrix(source, setup.checkpoint, setup.backend));
  const bool calibrated = matrix.is_head && setup.method.calibrates;
  HeadStatistics statistics;
  OrderedGram ordered;
  LayerInputs inputs;
  LinearReport report{.name = matrix.linear.name, .rows = w.rows(), .columns = w.columns()};
  if (calibrated) {
    statistics = QUERN_TRY(head_statistics(setup));
    inputs = inputs_of(setup, statistics);
  }
  if (calibrated && setup.method.compensates) {
    const Tensor consumer = w.tensor();
    const float damping = QUERN_TRY(choose_damping(setup.backend.pool(), {&consumer, 1}, inputs,
                                                   {.least = setup.recipe.damping}));
    ordered = QUERN_TRY(order_gram(setup.backend.pool(), statistics.train.gram.tensor(),
                                   setup.group_size, damping));
    inputs.ordered = &ordered;
    report.damping = static_cast<double>(damping);
  }
  const LayerRounder rounder{setup.backend.pool(), setup.method, setup.recipe, setup.group_size};
  QuantizedBlock block;
  block.report.name = matrix.linear.name;
  block.report.fold = "none";
  block.linears.push_back(empty_grouped(w.rows(), w.columns(), setup.group_size));
  block.biases.emplace_back();
  for (int64_t row = 0; row < w.rows(); row += kSliceRows) {
    const int64_t count = std::min(kSliceRows, w.rows() - row);
    LinearReport slice;
    append(block.linears[0], rounder.round(w.tensor().slice_rows(row, count), inputs, slice), row);
    append(report, slice, static_cast<double>(count) / static_cast<double>(w.rows()));
  }
  block.report.linears.push_back(report);
  return block;
}

}  // namespace quern
