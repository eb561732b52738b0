// Loops that the compiler turns into vector code for the machine at hand.
//
// QUERN_CLONES compiles a function once for each level of x86-64 and picks one when the program is
// loaded. Floating-point products and sums are never fused by the compiler, so every clone gives
// the same bits.
#pragma once

#include <cstdint>

#include "base/clones.h"

namespace quern {

// y += a * x, both [count].
void add_scaled(float* y, float a, const float* x, int64_t count);

// y += a[0] * x[0] + ... + a[rows - 1] * x[rows - 1] in the columns of `range`, added one after the
// other as by add_scaled().
struct ColumnRange {
  int64_t begin = 0;
  int64_t end = 0;
};
void add_scaled_rows(
    float* y, const float* a, const float* const* x, int64_t rows, ColumnRange range);

// The dot product of x and y, both [count], in sixteen interleaved partial sums.
float dot(const float* x, const float* y, int64_t count);

}  // namespace quern
