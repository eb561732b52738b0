#include "quant/token_weights.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "quant/objective.h"

namespace quern {
namespace {

constexpr double kLeastSquare = 1e-12;  // of a stream
constexpr double kLeastShare = 1e-6;    // of an answer in its stream

double mean_square(Tensor x, int64_t row) {
  return sum_of_squares(x.slice_rows(row, 1)) / static_cast<double>(x.shape[1]);
}

}  // namespace

TokenWeights token_weights(Tensor answer, Tensor stream, float power) {
  QUERN_CHECK(answer.rows() == stream.rows());
  const auto raised = [&](double x) {
    return static_cast<float>(std::pow(x, static_cast<double>(power)));
  };
  TokenWeights weights;
  for (int64_t i = 0; i < stream.rows(); ++i) {
    const double added = mean_square(answer, i);
    const double size = std::max({mean_square(stream, i), added, kLeastSquare});
    weights.output.push_back(raised(1.0 / size));
    weights.input.push_back(raised(std::max(added / size, kLeastShare)));
  }
  return weights;
}

}  // namespace quern
