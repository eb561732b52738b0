// quantize() with the numbers of its procedure open to change, for tests and measurements.
#pragma once

#include "quant/layer_rounder.h"
#include "quant/quantize.h"

namespace quern {

Result<QuantizeReport> quantize_with(const QuantizeJob& job,
                                     const QuantizeOptions& options,
                                     const Recipe& recipe);

}  // namespace quern
