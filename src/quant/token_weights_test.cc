#include "quant/token_weights.h"

#include <algorithm>
#include <initializer_list>
#include <vector>

#include <gtest/gtest.h>

#include "tensor/buffer.h"

namespace quern {
namespace {

FloatMatrix rows_of(std::initializer_list<float> values, int64_t width) {
  FloatMatrix x(static_cast<int64_t>(values.size()), width);
  int64_t row = 0;
  for (const float value : values) std::fill_n(x.row(row++), width, value);
  return x;
}

// The first token's answer is a part of its stream, the second's all of it, the third has none.
TEST(TokenWeights, AnswersCountByTheirShareOfTheStream) {
  const FloatMatrix stream = rows_of({2.0f, 100.0f, -4.0f}, 8);
  const FloatMatrix answer = rows_of({0.5f, 100.0f, 0.0f}, 8);
  const TokenWeights fully =
      token_weights(answer.tensor(), stream.tensor(), {.share = 1, .sinks = 0});
  EXPECT_EQ(fully.output, (std::vector<float>{0.25f, 1e-4f, 0.0625f}));
  EXPECT_EQ(fully.input, (std::vector<float>{0.0625f, 1.0f, 1e-6f}));
  const TokenWeights half =
      token_weights(answer.tensor(), stream.tensor(), {.share = 0.5f, .sinks = 0});
  EXPECT_EQ(half.output, (std::vector<float>{0.5f, 1e-2f, 0.25f}));
  EXPECT_EQ(half.input, (std::vector<float>{0.25f, 1.0f, 1e-3f}));
  const TokenWeights none =
      token_weights(answer.tensor(), stream.tensor(), {.share = 0, .sinks = 0});
  EXPECT_EQ(none.output, (std::vector<float>{1.0f, 1.0f, 1.0f}));
  EXPECT_EQ(none.input, none.output);
}

// Streams of mean square 4, 1e4 and 16, the median: only the second is above it.
TEST(TokenWeights, StreamsFarAboveTheUsualOneCountMore) {
  const FloatMatrix stream = rows_of({2.0f, 100.0f, -4.0f}, 8);
  const FloatMatrix answer = rows_of({2.0f, 50.0f, 4.0f}, 8);
  const TokenWeights weights = token_weights(answer.tensor(), stream.tensor(), {});
  EXPECT_EQ(weights.output, (std::vector<float>{0.25f, 25.0f * 1e-4f, 0.0625f}));
  EXPECT_EQ(weights.input, (std::vector<float>{1.0f, 25.0f * 0.25f, 1.0f}));
  const TokenWeights alone = token_weights(answer.tensor(), stream.tensor(), {.share = 0});
  EXPECT_EQ(alone.output, (std::vector<float>{1.0f, 25.0f, 1.0f}));
  EXPECT_EQ(alone.input, alone.output);
}

TEST(TokenWeights, AnAnswerThatCancelsItsStreamIsTheMeasure) {
  const FloatMatrix stream = rows_of({0.0f, 1.0f}, 4);
  const FloatMatrix answer = rows_of({10.0f, 10.0f}, 4);
  const TokenWeights weights = token_weights(answer.tensor(), stream.tensor(), {.sinks = 0});
  EXPECT_EQ(weights.output, (std::vector<float>{0.01f, 0.01f}));
  EXPECT_EQ(weights.input, (std::vector<float>{1.0f, 1.0f}));
}

TEST(TokenWeights, StayFiniteForEmptyStreams) {
  const FloatMatrix zero = rows_of({0.0f}, 4);
  const TokenWeights weights = token_weights(zero.tensor(), zero.tensor(), {});
  EXPECT_EQ(weights.output, std::vector<float>{1e12f});
  EXPECT_EQ(weights.input, std::vector<float>{1e-6f});
}

}  // namespace
}  // namespace quern
