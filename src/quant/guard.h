// The promise that no group ends worse than round to nearest, kept on tokens that chose nothing.
#pragma once

#include <cstdint>

#include "base/thread_pool.h"
#include "tensor/tensor.h"
#include "tensor/weight.h"

namespace quern {

// Judges every group of `weight` on held-out statistics: where its plain rounding, all else in the
// row left as it is, would cost the row less, the group takes it. w: [rows, n], what was rounded;
// gram and pull as in objective.h, of held-out tokens. Returns the number of groups that went back.
int64_t revert_worse_groups(
    ThreadPool& pool, GroupedWeight& weight, Tensor w, Tensor gram, const Tensor* pull);

}  // namespace quern
