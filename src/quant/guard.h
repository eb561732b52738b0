// The promise that nothing ends worse than round to nearest, kept on tokens that chose nothing.
#pragma once

#include <cstdint>

#include "base/thread_pool.h"
#include "tensor/tensor.h"
#include "tensor/weight.h"

namespace quern {

// Judges every row of `weight` on held-out statistics. The groups of a row answer for each other's
// errors, so a row is the least that can be judged: where it costs more than the row rounded
// plainly, its groups take their plain rounding one after the other as far as each lowers the cost,
// and all of them when that is not enough. w: [rows, n], what was rounded; gram and pull as in
// objective.h, of held-out tokens. Returns the number of groups that went back.
int64_t revert_worse_groups(
    ThreadPool& pool, GroupedWeight& weight, Tensor w, Tensor gram, const Tensor* pull);

}  // namespace quern
