// Mean and percentiles of measured times.
#pragma once

#include <cstddef>
#include <vector>

namespace quern {

struct Summary {
  size_t count = 0;
  double mean = 0, median = 0, p90 = 0, p95 = 0, p99 = 0, max = 0;
};

// The value below which `percent` of the sorted values lie, between two values by linear
// interpolation (as numpy's default). Requires values in rising order, not empty.
double percentile(const std::vector<double>& sorted, double percent);

// All zeros for no values.
Summary summarize(std::vector<double> values);

}  // namespace quern
