// Float numbers that lie in a file one after the other, at any address.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/result.h"
#include "tensor/tensor.h"
#include "tensor/weight.h"

namespace quern {

// True for F32, F16 and BF16, the types that the functions below take.
bool is_dense_float(DType dtype);

// Widens `count` elements to float32, exactly.
void widen_floats(DType dtype, const std::byte* data, int64_t count, float* out);

// A matrix over `bytes`, which hold rows * columns elements: a view when they are aligned for the
// type, else a copy. `name` says what it is in messages.
// Errors: kInvalidArgument when an element is NaN or infinite.
Result<DenseWeight> make_dense_weight(DType dtype,
                                      std::span<const std::byte> bytes,
                                      std::array<int64_t, 2> shape,
                                      std::string_view name);

// The place of the first NaN or infinity, or -1.
int64_t find_nonfinite(DType dtype, const std::byte* data, int64_t count);

}  // namespace quern
