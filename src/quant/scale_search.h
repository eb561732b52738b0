// Activation-aware channel scales (AWQ, arXiv:2306.00978): multiplying the columns of salient
// channels before rounding, and dividing the inputs by the same numbers, spares them error.
#pragma once

#include <cstdint>
#include <vector>

#include "base/thread_pool.h"
#include "tensor/buffer.h"
#include "tensor/tensor.h"

namespace quern {

// The matrices that read one input and so share its scales.
struct ScaleProblem {
  std::vector<Tensor> consumers{};  // each [rows, n] f32
  Tensor gram{};                    // [n, n]: mean x x^T
  std::vector<float> magnitude{};   // [n]: mean |x|
  // Channels that must share one number: class_of[channel] < classes. Grouped-query attention ties
  // the channels of the query heads of one key-value head. Empty: every channel is its own class.
  std::vector<int32_t> class_of{};
  int64_t classes = 0;
  int group_size = 0;
};

struct ScaleChoice {
  std::vector<float> scales;  // [n]; all ones when nothing in the grid beat plain rounding
  double identity_cost = 0;   // output error of plain rounding over the sampled rows
  double cost = 0;            // of the choice, on the same rows; at most identity_cost
};

// Tries s = x^r and s = x^r / w^(1-r) for r = 0, 0.1, ..., 0.9 and then 0.05 to either side of the
// best, normalised to sqrt(max * min) = 1, and the identity; x is the mean magnitude of a channel,
// w the mean of its weights relative to their group's largest. Matrices are judged by up to 256
// evenly spaced rows.
ScaleChoice search_scales(ThreadPool& pool, const ScaleProblem& problem);

// Classes for the input of an attention's output projection: [heads * head_dim] channels whose
// number depends on the key-value head and the dimension only.
std::vector<int32_t> grouped_query_classes(int heads, int kv_heads, int head_dim);

// The output error, summed over consumers, of rounding W * s to nearest and dividing by s again, by
// the same rows.
double scaled_rounding_cost(ThreadPool& pool,
                            const ScaleProblem& problem,
                            const std::vector<float>& scales);

}  // namespace quern
