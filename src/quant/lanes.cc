#include "quant/lanes.h"

namespace quern {

QUERN_CLONES
void add_scaled(float* y, float a, const float* x, int64_t count) {
  for (int64_t i = 0; i < count; ++i) y[i] += a * x[i];
}

QUERN_CLONES
float dot(const float* x, const float* y, int64_t count) {
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

}  // namespace quern
