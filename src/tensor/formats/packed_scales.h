// Scales of packed INT4 and INT8 checkpoints: reading and writing them exactly.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "tensor/tensor.h"

namespace quern {

// Errors: kInvalidArgument, naming `name`, unless `bytes` holds exactly `count` finite numbers of
// F16, BF16 or F32.
Result<std::vector<float>> read_scales(std::span<const std::byte> bytes,
                                       DType dtype,
                                       uint64_t count,
                                       std::string_view name);

// Little-endian numbers of `dtype`. Errors: kInvalidArgument, naming `name`, when the type is
// another than F16, BF16 or F32 or a scale is not exactly a finite number of it.
Result<std::vector<std::byte>> write_scales(std::span<const float> scales,
                                            DType dtype,
                                            std::string_view name);

}  // namespace quern
