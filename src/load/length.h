// How many tokens a request has: a number, or a distribution to draw it from.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "load/random_stream.h"

namespace quern {

inline constexpr int64_t kMaxLengthTokens = 1 << 20;

class LengthDistribution {
 public:
  // "128", "uniform(64,256)" (both ends included), "normal(MEAN,DEVIATION)" or
  // "lognormal(MEDIAN,SIGMA)" with SIGMA the deviation of the logarithm. `name` is what errors call
  // it ("--input-tokens"). Errors: kInvalidArgument naming the text.
  static Result<LengthDistribution> parse(const std::string& text, const std::string& name);

  static LengthDistribution fixed(int64_t tokens) {
    return {Kind::kFixed, static_cast<double>(tokens), 0};
  }

  // Rounded, and brought into [1, kMaxLengthTokens].
  int64_t draw(RandomStream& random) const;

  // As parse() reads it.
  std::string text() const;

 private:
  enum class Kind : uint8_t { kFixed, kUniform, kNormal, kLognormal };

  LengthDistribution(Kind kind, double first, double second)
      : kind_(kind), first_(first), second_(second) {}

  Kind kind_;
  double first_, second_;
};

}  // namespace quern
