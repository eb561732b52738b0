// Turns one matrix into codes by the method's steps, and says what it cost on held-out tokens.
#pragma once

#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "quant/feedback.h"
#include "quant/quantize.h"
#include "quant/statistics.h"
#include "quant/token_weights.h"
#include "tensor/buffer.h"
#include "tensor/tensor.h"
#include "tensor/weight.h"

namespace quern {

// The numbers of the procedure; docs/quantisation.md says what each was measured to be worth.
struct Recipe {
  float damping = 0.02f;  // least, of Gram matrices, as a share of the mean diagonal
  int refine_sweeps = 8;
  TokenWeighting token_weighting;
  int scale_search_every = 4;  // windows for the statistics of the scale search of inner inputs
  float largest_fold_error = 1e-3f;
};

// What `cross` of the statistics of a layer's inputs x is the mean of.
enum class CrossKind : uint8_t {
  kNone,   // inputs are those of the full-precision model
  kInput,  // (x_full - x) x^T: the layer is to answer as for the full-precision inputs
  kOutput  // t x^T: the layer is to answer t
};

// Statistics of the inputs that several layers share. Pointers may be nullptr: then the method does
// not calibrate, or nothing is held out.
struct LayerInputs {
  const Statistics* train = nullptr;
  const Statistics* held_out = nullptr;
  const Statistics* held_out_difference = nullptr;  // of x_full - x, for kInput
  CrossKind kind = CrossKind::kNone;
  const OrderedGram* ordered = nullptr;  // of train->gram; required by methods that compensate
  const std::vector<float>* scales = nullptr;  // that were folded into the inputs, for the report
};

struct LayerRounder {
  ThreadPool& pool;
  const Quantizer& method;
  const Recipe& recipe;
  int group_size;

  // w: [rows, n], scales folded in. The report's costs are means over up to 256 evenly spaced rows.
  GroupedWeight round(Tensor w, const LayerInputs& inputs, LinearReport& report) const;

 private:
  GroupedWeight choose(Tensor w, const LayerInputs& inputs) const;
  void judge(Tensor w,
             const GroupedWeight& rounded,
             const LayerInputs& inputs,
             const FloatMatrix& pull,
             LinearReport& report) const;
};

// b of objective.h for rows w: [rows, n] and the gram and cross of their inputs' statistics; of the
// rows of cross, for kOutput, those of w. Empty for kNone.
FloatMatrix pull_of(ThreadPool& pool, Tensor w, Tensor gram, Tensor cross, CrossKind kind);

}  // namespace quern
