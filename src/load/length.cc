#include "load/length.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include <fmt/format.h>

#include "load/numbers.h"

namespace quern {
namespace {

struct Call {
  std::string name;
  std::vector<double> arguments;
};

// "NAME(X,Y)" or a number alone, which is a call of "fixed".
std::optional<Call> read_call(const std::string& text) {
  Call call{"fixed", {}};
  std::string inner = text;
  if (const size_t open = text.find('('); open != std::string::npos) {
    if (text.back() != ')') return std::nullopt;
    call.name = text.substr(0, open);
    inner = text.substr(open + 1, text.size() - open - 2);
  }
  for (size_t at = 0; at <= inner.size();) {
    const size_t comma = std::min(inner.find(',', at), inner.size());
    const std::optional<double> number = read_number(inner.substr(at, comma - at));
    if (!number) return std::nullopt;
    call.arguments.push_back(*number);
    at = comma + 1;
  }
  return call;
}

bool is_length(double tokens) {
  return tokens >= 1 && tokens <= static_cast<double>(kMaxLengthTokens);
}

bool is_whole_length(double tokens) { return is_length(tokens) && tokens == std::floor(tokens); }

}  // namespace

Result<LengthDistribution> LengthDistribution::parse(const std::string& text,
                                                     const std::string& name) {
  const Error wrong{
      ErrorCode::kInvalidArgument,
      fmt::format("{} is \"{}\"; expected a number of tokens from 1 to {}, uniform(LEAST,MOST), "
                  "normal(MEAN,DEVIATION) or lognormal(MEDIAN,SIGMA)",
                  name, text, kMaxLengthTokens)};
  const std::optional<Call> call = read_call(text);
  if (!call) return wrong;
  const double first = call->arguments[0];
  if (call->name == "fixed") {
    if (call->arguments.size() != 1 || !is_whole_length(first)) return wrong;
    return LengthDistribution(Kind::kFixed, first, 0);
  }
  if (call->arguments.size() != 2) return wrong;
  const double second = call->arguments[1];
  if (call->name == "uniform") {
    if (!is_whole_length(first) || !is_whole_length(second) || second < first) return wrong;
    return LengthDistribution(Kind::kUniform, first, second);
  }
  if (!is_length(first) || !(second >= 0)) return wrong;
  if (call->name == "normal") return LengthDistribution(Kind::kNormal, first, second);
  if (call->name == "lognormal") return LengthDistribution(Kind::kLognormal, first, second);
  return wrong;
}

int64_t LengthDistribution::draw(RandomStream& random) const {
  double tokens = first_;
  switch (kind_) {
    case Kind::kFixed:
      break;
    case Kind::kUniform:
      tokens += static_cast<double>(random.below(static_cast<uint64_t>(second_ - first_) + 1));
      break;
    case Kind::kNormal:
      tokens += second_ * random.normal();
      break;
    case Kind::kLognormal:
      tokens *= std::exp(second_ * random.normal());
      break;
  }
  return std::llround(std::clamp(tokens, 1.0, static_cast<double>(kMaxLengthTokens)));
}

std::string LengthDistribution::text() const {
  switch (kind_) {
    case Kind::kFixed:
      return fmt::format("{:.0f}", first_);
    case Kind::kUniform:
      return fmt::format("uniform({:.0f},{:.0f})", first_, second_);
    case Kind::kNormal:
      return fmt::format("normal({:g},{:g})", first_, second_);
    case Kind::kLognormal:
      return fmt::format("lognormal({:g},{:g})", first_, second_);
  }
  return {};
}

}  // namespace quern
