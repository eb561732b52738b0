// When requests are due: an open loop whose gaps do not depend on how fast the server answers, or
// all at once for a closed loop.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "base/result.h"

namespace quern {

inline constexpr int64_t kMaxRequests = 10'000'000;

enum class Ramp : uint8_t { kNone, kLinear, kExponential };

struct ArrivalOptions {
  double rate_per_second = std::numeric_limits<double>::infinity();
  double burstiness = 1;  // shape of the gamma distribution of the gaps; 1 is Poisson
  Ramp ramp = Ramp::kNone;
  double ramp_from_per_second = 0;  // the rate at the start; rate_per_second is the one at the end
  int64_t requests = 0;             // 0: as many as the duration takes
  double duration_seconds = 0;      // 0: until all requests are sent
  uint64_t seed = 0;
};

// Seconds from the start of the run at which each request is due, never falling. Gaps are drawn
// from a gamma distribution of mean 1 / rate and shape `burstiness`, as vLLM's benchmark draws
// them: below 1 they come in bursts, above 1 evenly. At a constant rate and with a number of
// requests the times are scaled so that the last one is due at requests / rate. An infinite rate
// gives zeros and, without a number of requests, an empty list: the closed loop then sends until
// its time is over. Errors: kInvalidArgument for options that contradict each other.
Result<std::vector<double>> arrival_times(const ArrivalOptions& options);

}  // namespace quern
