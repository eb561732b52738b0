// What tokens count for in the statistics of a layer's inputs: errors matter by their share of the
// residual stream that they are added to, because the next norm divides by it, and by how many
// other tokens lean on theirs.
#pragma once

#include <vector>

#include "tensor/tensor.h"

namespace quern {

// Powers of the two measures; 0 leaves one out.
struct TokenWeighting {
  float share = 1.0f;  // of an error in its stream, squared
  // Of a stream's mean square over the median of its window, where that is above 1. Some tokens,
  // the first of a window among them, get a stream hundreds of times the others' from one MLP
  // (massive activations, arXiv:2402.17762), and attention of every later layer rests on them:
  // their errors are everybody's, and there are a few of them in hundreds.
  float sinks = 0.5f;
};

// What one block adds to the stream of each token of a window. answer, stream: [tokens, width]; the
// stream is the one behind the block. An answer that takes away nearly all of a stream is the
// measure itself.
struct TokenWeights {
  // For layers that write into the stream: (sinks measure) / max(mean(stream^2), mean(answer^2)).
  std::vector<float> output;
  // For layers that read an MLP's input, whose relative errors become relative errors of its
  // answer: (sinks measure) * mean(answer^2) / max(mean(stream^2), mean(answer^2)).
  std::vector<float> input;
};
TokenWeights token_weights(Tensor answer, Tensor stream, const TokenWeighting& weighting);

}  // namespace quern
