// What a quantisation will take, and whether it can be done at all, before any weight is read.
#pragma once

#include "base/result.h"
#include "model/checkpoint.h"
#include "model/spec.h"
#include "quant/block_quantizer.h"
#include "quant/quantize.h"

namespace quern {

// A matrix outside the blocks that becomes INT4.
struct OuterMatrix {
  LinearSpec linear;   // as it will be called in the result
  std::string source;  // module path in the source
  bool is_head = false;
};

struct DetailedPlan {
  QuantizePlan summary;
  InnerActivations inner = InnerActivations::kStored;
  std::vector<OuterMatrix> outer;
};

// Errors: those of quantize() that need no weights.
Result<DetailedPlan> make_plan(const Checkpoint& checkpoint,
                               const ModelSpec& spec,
                               const CalibrationWindows& calibration,
                               const QuantizeOptions& options);

}  // namespace quern
