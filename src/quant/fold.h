// Moves channel scales into the weights around a layer without changing what the block computes.
#pragma once

#include <vector>

#include "base/thread_pool.h"
#include "model/spec.h"
#include "quant/block_matrices.h"

namespace quern {

// Divides the input of the joined layers by `scales` through the block's norm, whose numbers are
// rounded to f16 as they will be stored, and multiplies every layer that reads it. Returns the
// scales that this really amounts to: a channel whose norm f16 cannot hold keeps 1.
std::vector<float> fold_input_scales(ThreadPool& pool,
                                     BlockMatrices& block,
                                     const std::vector<float>& scales);

// Divides the input of the output layer by `scales` through the rows and biases that produce it
// (v of attention, up of an MLP), and multiplies the output layer's columns. For attention the
// scales are equal within the classes of grouped_query_classes().
void fold_output_scales(ThreadPool& pool,
                        const BlockSpec& spec,
                        BlockMatrices& block,
                        const std::vector<float>& scales);

}  // namespace quern
