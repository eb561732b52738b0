#include "engine/speculation.h"

#include <algorithm>

namespace quern {
namespace {

// How many tokens before and with `end` equal those at the end of the text, at most `most`.
int64_t common_end(std::span<const int32_t> tokens, int64_t end, int64_t most) {
  const int32_t* const earlier = tokens.data() + end;
  const int32_t* const last = tokens.data() + tokens.size() - 1;
  int64_t length = 0;
  while (length < most && length <= end && earlier[-length] == last[-length]) ++length;
  return length;
}

}  // namespace

void guess_from_text(std::span<const int32_t> tokens,
                     const SpeculationOptions& options,
                     int64_t most,
                     std::vector<int32_t>& draft) {
  draft.clear();
  const auto known = static_cast<int64_t>(tokens.size());
  int64_t longest = options.min_ngram - 1;
  int64_t found = -1;
  for (int64_t end = known - 2; end >= 0 && longest < options.max_ngram; --end) {
    const int64_t length = common_end(tokens, end, options.max_ngram);
    if (length <= longest) continue;
    longest = length;
    found = end;
  }
  if (found < 0) return;
  for (int64_t i = 0; i < most; ++i) {
    const int64_t next = found + 1 + i;
    draft.push_back(next < known ? tokens[static_cast<size_t>(next)]
                                 : draft[static_cast<size_t>(next - known)]);
  }
}

// Mean, variance and covariance with weights that fall off exponentially (West 1979).
void DraftPolicy::observe(int64_t rows, int64_t ns) {
  const auto x = static_cast<double>(rows);
  const auto y = static_cast<double>(ns);
  if (!has_steps_) {
    has_steps_ = true;
    mean_rows_ = x;
    mean_ns_ = y;
    return;
  }
  const double dx = x - mean_rows_;
  const double dy = y - mean_ns_;
  mean_rows_ += kWeight * dx;
  mean_ns_ += kWeight * dy;
  rows_variance_ = (1 - kWeight) * (rows_variance_ + kWeight * dx * dx);
  covariance_ = (1 - kWeight) * (covariance_ + kWeight * dx * dy);
  constexpr double kLeastVariance = 1e-3;  // below, all steps were alike: b stays as it was
  if (rows_variance_ > kLeastVariance) row_ns_ = std::max(0.0, covariance_ / rows_variance_);
}

int64_t DraftPolicy::length(double acceptance,
                            int64_t sequences,
                            int64_t most,
                            double round_ns) const {
  const auto n = static_cast<double>(sequences);
  const double step_ns = time_of(n);
  const double least = step_ns > 0 ? (n * row_ns_ + round_ns) / step_ns : 0;
  int64_t length = 0;
  for (double right = acceptance; length < most && right >= least; right *= acceptance) ++length;
  return steps_ % kProbe == 0 ? std::max(length, std::min<int64_t>(1, most)) : length;
}

}  // namespace quern
