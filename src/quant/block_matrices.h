// One residual block with its matrices as float32, open to change.
#pragma once

#include <vector>

#include "base/result.h"
#include "kernels/backend.h"
#include "model/block.h"
#include "model/checkpoint.h"
#include "model/spec.h"
#include "tensor/buffer.h"
#include "tensor/weight.h"

namespace quern {

struct BlockMatrices {
  std::vector<float> norm;
  std::vector<FloatMatrix> linears;        // [out, in] each, in the order of linears(spec)
  std::vector<std::vector<float>> biases;  // likewise; empty where there is none
  std::vector<float> q_norm, k_norm;
};

// The layers of one input follow one another in linears(spec); the last layer is the output.
inline size_t output_index(const BlockMatrices& block) { return block.linears.size() - 1; }

// Errors: those of Checkpoint::weight() and vector(); kInvalidArgument, naming the layer, for a
// shape other than the spec's, NaN, infinities, and weights beyond what an f16 scale can express.
Result<BlockMatrices> read_block(const BlockSpec& spec, const Checkpoint& checkpoint, Backend& b);

// One matrix, read and checked in the same way.
Result<FloatMatrix> read_matrix(const LinearSpec& spec, const Checkpoint& checkpoint, Backend& b);

// Weights to run the block with.
BlockWeights pack_block(const BlockMatrices& block, Backend& backend, Precision precision);

// The joined input layers alone, and the output layer alone.
std::unique_ptr<PackedWeight> pack_input(const BlockMatrices& block,
                                         Backend& backend,
                                         Precision precision);
std::unique_ptr<PackedWeight> pack_output(const BlockMatrices& block,
                                          Backend& backend,
                                          Precision precision);

}  // namespace quern
