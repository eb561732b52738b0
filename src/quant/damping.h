// How far a regression on calibration tokens may be trusted, judged by tokens that it has not seen.
#pragma once

#include <span>

#include "base/result.h"
#include "base/thread_pool.h"
#include "quant/layer_rounder.h"
#include "tensor/tensor.h"

namespace quern {

// The dampings that are tried: `least`, or up to five times four times as much.
struct DampingRange {
  float least = 0;
  float guess = 0;  // where the search begins: what a layer like this one took; 0: at the least
};

// The damping, as a share of the mean diagonal of the Gram matrix, with which correct() costs least
// on held-out tokens: neither the next larger nor the next smaller one costs less. `consumers` are
// the matrices that read the inputs; evenly spaced rows stand for all of them. The least where
// nothing is held out or nothing is to be corrected.
// Errors: those of factor_upper().
Result<float> choose_damping(ThreadPool& pool,
                             std::span<const Tensor> consumers,
                             const LayerInputs& inputs,
                             const DampingRange& range);

}  // namespace quern
