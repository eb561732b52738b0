// Rounding that answers for its own errors (GPTQ, arXiv:2210.17323): what one column loses is put
// right by the columns behind it, as far as calibration inputs let them stand in for each other.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "quant/rounding.h"
#include "tensor/buffer.h"
#include "tensor/tensor.h"

namespace quern {

// The damped Gram matrix of a layer's inputs and its factor, both with columns in the order in
// which they will be rounded.
struct OrderedGram {
  std::vector<int32_t> order;  // order[i]: the column that is rounded i-th; groups stay together
  FloatMatrix gram;            // damped
  FloatMatrix factor;          // factor_upper(gram)
};

// Groups in descending order of their inputs' power, the columns inside a group likewise: errors
// are left to the columns that matter least. `damping`: share of the mean diagonal that is added.
// Errors: those of factor_upper().
Result<OrderedGram> order_gram(ThreadPool& pool, Tensor gram, int group_size, float damping);

// Columns of x: [rows, n] into the order of rounding.
FloatMatrix reorder_columns(ThreadPool& pool, Tensor x, const std::vector<int32_t>& order);

// w += pull (gram + damping)^-1: the ridge regression that lets the matrix answer what is wanted
// from the inputs that it will get. All in the order of `ordered`; pull is consumed.
void correct(ThreadPool& pool, Tensor w, Tensor pull, const OrderedGram& ordered);

// Rounds w: [rows, n], in the order of `ordered`, group by group. When a group is reached, its
// grid is searched by running the feedback inside the group for every candidate range. The result
// is in the order of `ordered` too, its groups in the order of rounding.
GroupedWeight round_with_feedback(ThreadPool& pool,
                                  Tensor w,
                                  const OrderedGram& ordered,
                                  int group_size);

// Lowers (v - w) gram (v - w)^T further, row by row: moves single codes, then scales, as long as
// either helps, for at most `sweeps` rounds. v is what `weight` stands for. Never raises the cost.
void refine(
    ThreadPool& pool, GroupedWeight& weight, Tensor w, const OrderedGram& ordered, int sweeps);

// Back from the order of rounding into the order of columns.
GroupedWeight restore_order(const GroupedWeight& weight, const std::vector<int32_t>& order);

}  // namespace quern
