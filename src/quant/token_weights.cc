#include "quant/token_weights.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "base/check.h"
#include "quant/objective.h"

namespace quern {
namespace {

constexpr double kLeastSquare = 1e-12;  // of a stream
constexpr double kLeastShare = 1e-6;    // of an answer in its stream

std::vector<double> mean_squares(Tensor x) {
  std::vector<double> squares;
  for (int64_t i = 0; i < x.rows(); ++i)
    squares.push_back(sum_of_squares(x.slice_rows(i, 1)) / static_cast<double>(x.shape[1]));
  return squares;
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

TokenWeights token_weights(Tensor answer, Tensor stream, const TokenWeighting& weighting) {
  QUERN_CHECK(answer.rows() == stream.rows() && stream.rows() > 0);
  const std::vector<double> streams = mean_squares(stream);
  const std::vector<double> answers = mean_squares(answer);
  const double usual = std::max(median(streams), kLeastSquare);
  const auto share = static_cast<double>(weighting.share);
  const auto sinks = static_cast<double>(weighting.sinks);
  TokenWeights weights;
  for (size_t i = 0; i < streams.size(); ++i) {
    const double size = std::max({streams[i], answers[i], kLeastSquare});
    const double leaning = std::pow(std::max(1.0, streams[i] / usual), sinks);
    const double part = std::max(answers[i] / size, kLeastShare);
    weights.output.push_back(static_cast<float>(leaning * std::pow(1.0 / size, share)));
    weights.input.push_back(static_cast<float>(leaning * std::pow(part, share)));
  }
  return weights;
}

}  // namespace quern
