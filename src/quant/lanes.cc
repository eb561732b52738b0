#include "quant/lanes.h"

namespace quern {
namespace {

QUERN_CLONES
void add_scaled_lanes(float* y, float a, const float* x, int64_t count) {
  for (int64_t i = 0; i < count; ++i) y[i] += a * x[i];
}

// Four rows at a time, so that y is read and written once for four.
QUERN_CLONES
void add_scaled_row_lanes(
    float* y, const float* a, const float* const* x, int64_t rows, ColumnRange range) {
  int64_t row = 0;
  for (; row + 4 <= rows; row += 4) {
    const float a0 = a[row], a1 = a[row + 1], a2 = a[row + 2], a3 = a[row + 3];
    const float *x0 = x[row], *x1 = x[row + 1], *x2 = x[row + 2], *x3 = x[row + 3];
    for (int64_t i = range.begin; i < range.end; ++i) {
      float sum = y[i] + a0 * x0[i];
      sum += a1 * x1[i];
      sum += a2 * x2[i];
      y[i] = sum + a3 * x3[i];
    }
  }
  for (; row < rows; ++row) {
    for (int64_t i = range.begin; i < range.end; ++i) y[i] += a[row] * x[row][i];
  }
}

QUERN_CLONES
float dot_lanes(const float* x, const float* y, int64_t count) {
  constexpr int64_t kLanes = 16;
  float sums[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int64_t k = 0; k < kLanes; ++k) sums[k] += x[i + k] * y[i + k];
  }
  for (int64_t k = 0; i + k < count; ++k) sums[k] += x[i + k] * y[i + k];
  float sum = 0;
  for (const float lane : sums) sum += lane;
  return sum;
}

}  // namespace

void add_scaled(float* y, float a, const float* x, int64_t count) {
  add_scaled_lanes(y, a, x, count);
}

void add_scaled_rows(
    float* y, const float* a, const float* const* x, int64_t rows, ColumnRange range) {
  add_scaled_row_lanes(y, a, x, rows, range);
}

float dot(const float* x, const float* y, int64_t count) { return dot_lanes(x, y, count); }

}  // namespace quern
