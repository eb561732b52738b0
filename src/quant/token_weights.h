// What tokens count for in the statistics of a layer's inputs: errors matter by their share of the
// residual stream that they are added to, because the next norm divides by it.
#pragma once

#include <vector>

#include "tensor/tensor.h"

namespace quern {

// What one block adds to the stream of each token. answer, stream: [tokens, width]; the stream is
// the one behind the block. An answer that takes away nearly all of a stream is the measure itself.
struct TokenWeights {
  // For layers that write into the stream: max(mean(stream^2), mean(answer^2))^-power.
  std::vector<float> output;
  // For layers that read an MLP's input, whose relative errors become relative errors of its
  // answer: (mean(answer^2) / max(mean(stream^2), mean(answer^2)))^power. Some tokens, the first of
  // a window among them, get nearly all of their stream from one MLP, and every later layer leans
  // on them (massive activations, arXiv:2402.17762); counted like the others, one in hundreds, they
  // would be rounded away.
  std::vector<float> input;
};
TokenWeights token_weights(Tensor answer, Tensor stream, float power);

}  // namespace quern
