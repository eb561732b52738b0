// How far a regression on calibration tokens may be trusted, judged by tokens that it has not seen.
#pragma once

#include <span>

#include "base/result.h"
#include "base/thread_pool.h"
#include "quant/layer_rounder.h"
#include "tensor/tensor.h"

namespace quern {

// The damping, as a share of the mean diagonal of the Gram matrix, with which correct() costs least
// on held-out tokens: `least`, or up to five times four times as much, the first from which more
// does not help. `consumers` are the matrices that read the inputs; evenly spaced rows stand for
// all of them. `least` where nothing is held out or nothing is to be corrected.
// Errors: those of factor_upper().
Result<float> choose_damping(ThreadPool& pool,
                             std::span<const Tensor> consumers,
                             const LayerInputs& inputs,
                             float least);

}  // namespace quern
