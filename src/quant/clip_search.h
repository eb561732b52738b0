// Searches how far the range of each group is drawn in: a few clipped weights for finer steps.
#pragma once

#include <vector>

#include "base/thread_pool.h"
#include "quant/rounding.h"
#include "tensor/tensor.h"

namespace quern {

// One grid for each group of w: [rows, columns], row by row: the one among ranges drawn in to 1.0,
// 0.95, ..., 0.5 of the full one (and then each end alone around the best) with the smallest
// d H d^T over the group's own block of gram: [columns, columns]. The full range is the first
// candidate, so no group is worse than plain rounding by this measure.
std::vector<GroupGrid> search_grids(ThreadPool& pool, Tensor w, Tensor gram, int group_size);

// w on the given grids.
GroupedWeight round_to_grids(ThreadPool& pool,
                             Tensor w,
                             const std::vector<GroupGrid>& grids,
                             int group_size);

// Multiplies the scales of each row by one number such that v H w = w H w, where v is what the
// row's codes stand for and H gram: [columns, columns], so that the row's answers keep their size
// along the full-precision ones (but for the rounding of scales to f16). Clipping takes from the
// largest weights, toward zero; a little in each row, but in all of them and in the layers behind.
void restore_size(ThreadPool& pool, GroupedWeight& weight, Tensor w, Tensor gram);

}  // namespace quern
