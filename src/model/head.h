// How the output head is held while running: the one matrix that quantisers leave dense and every
// step reads whole.
#pragma once

#include <cstdint>
#include <optional>

#include "base/result.h"
#include "base/thread_pool.h"
#include "kernels/backend.h"
#include "model/checkpoint.h"
#include "model/spec.h"
#include "tensor/weight.h"

namespace quern {

enum class HeadFormat : uint8_t {
  kAuto,    // kInt8 when run fast and the blocks are quantised, else kStored
  kStored,  // as the checkpoint holds it
  kInt8,    // a dense head in 8 bits, symmetric, one scale for each group of columns
};

// The matrix that gives the logits; the embedding table when tied.
const std::string& head_name(const ModelSpec& spec);

// The group size of the head at load, nullopt when it stays as it is: because it is quantised
// already, no group size divides its columns, or `format` says so. Errors: those of
// Checkpoint::weight_info().
Result<std::optional<int>> head_group_size(const ModelSpec& spec,
                                           const Checkpoint& checkpoint,
                                           Precision precision,
                                           HeadFormat format);

// Codes round_half_even(w / scale) + 128 with scale = f16(max|w| / 127) over each group of a row;
// the largest relative error of a group is 2^-8. Requires a group size that divides the columns.
GroupedWeight round_to_int8(const Weight& weight, int group_size, ThreadPool& pool);

}  // namespace quern
