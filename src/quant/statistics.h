// What calibration keeps of the tokens that pass a layer: second moments instead of the tokens.
#pragma once

#include <cstdint>
#include <vector>

#include "base/thread_pool.h"
#include "tensor/buffer.h"
#include "tensor/tensor.h"

namespace quern {

// Means over tokens; sums until finish().
struct Statistics {
  // targets: width of what is wanted at the output (see add()), 0 when nothing is.
  Statistics() = default;
  Statistics(int64_t inputs, int64_t targets);

  // Adds the rows of x: [tokens, inputs], and with targets of t: [tokens, targets]. `weights`: one
  // a token, or empty for 1.
  void add(ThreadPool& pool, Tensor x, const Tensor* t, const std::vector<float>& weights);

  void finish(ThreadPool& pool);

  // To the statistics of inputs divided by `scales`. `cross` keeps its targets.
  void divide_inputs(ThreadPool& pool, const std::vector<float>& scales);

  FloatMatrix gram;                    // [inputs, inputs]: mean x x^T
  FloatMatrix cross;                   // [targets, inputs]: mean t x^T
  std::vector<double> magnitude;       // [inputs]: mean |x|, tokens unweighted
  std::vector<double> target_squares;  // [targets]: mean t^2
  double weight = 0;                   // sum of the tokens' weights
  double tokens = 0;

 private:
  FloatMatrix weighted_x_, weighted_t_;
};

}  // namespace quern
