// Quantises the matrices outside the blocks: the head, by the inputs that it will get, and the
// embedding table.
#pragma once

#include "base/result.h"
#include "kernels/backend.h"
#include "model/checkpoint.h"
#include "model/spec.h"
#include "quant/block_quantizer.h"
#include "quant/layer_rounder.h"
#include "quant/plan.h"
#include "quant/streams.h"

namespace quern {

struct OuterSetup {
  const Checkpoint& checkpoint;
  const ModelSpec& spec;
  Backend& backend;
  const Quantizer& method;
  const Recipe& recipe;
  int group_size;
  const Streams&
      streams;  // behind the last block; without windows for methods that do not calibrate
};

// A block of one matrix. Works through the vocabulary in slices of bounded memory.
// Errors: those of read_matrix().
Result<QuantizedBlock> quantize_outer(const OuterSetup& setup, const OuterMatrix& matrix);

}  // namespace quern
