#include "load/arrivals.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "load/random_stream.h"

namespace quern {
namespace {

Error wrong(std::string message) { return {ErrorCode::kInvalidArgument, std::move(message)}; }

Result<Unit> check(const ArrivalOptions& options) {
  if (!(options.rate_per_second > 0)) {
    return wrong(fmt::format("--rate is {}; expected requests a second above 0, or inf",
                             options.rate_per_second));
  }
  if (!(options.burstiness > 0)) {
    return wrong(fmt::format("--burstiness is {}; expected a number above 0 (1 is Poisson)",
                             options.burstiness));
  }
  if (options.requests < 0 || options.requests > kMaxRequests) {
    return wrong(fmt::format("--requests is {}; expected 1 to {}", options.requests, kMaxRequests));
  }
  if (options.requests == 0 && !(options.duration_seconds > 0)) {
    return wrong("a run needs an end: --requests N or --duration S");
  }
  if (options.ramp == Ramp::kNone) return Unit{};
  if (std::isinf(options.rate_per_second)) {
    return wrong("--ramp-from needs a finite --rate to end at");
  }
  if (!(options.ramp_from_per_second > 0)) {
    return wrong(fmt::format("--ramp-from is {}; expected requests a second above 0",
                             options.ramp_from_per_second));
  }
  return Unit{};
}

// The rate when `progress` of the run, 0 to 1, is done.
double rate_at(const ArrivalOptions& options, double progress) {
  const double from = options.ramp_from_per_second, to = options.rate_per_second;
  if (options.ramp == Ramp::kLinear) return from + (to - from) * progress;
  if (options.ramp == Ramp::kExponential) return from * std::pow(to / from, progress);
  return to;
}

double progress_of(const ArrivalOptions& options, size_t index, double seconds) {
  if (options.requests == 0) return std::min(seconds / options.duration_seconds, 1.0);
  return static_cast<double>(index) / std::max(static_cast<double>(options.requests) - 1, 1.0);
}

double gap(const ArrivalOptions& options, size_t index, double rate) {
  if (std::isinf(options.burstiness)) return 1 / rate;
  RandomStream random(options.seed, RandomPurpose::kArrival, index);
  return random.gamma(options.burstiness) / (options.burstiness * rate);
}

}  // namespace

Result<std::vector<double>> arrival_times(const ArrivalOptions& options) {
  QUERN_TRY(check(options));
  if (std::isinf(options.rate_per_second)) {
    return std::vector<double>(static_cast<size_t>(options.requests), 0.0);
  }
  const bool timed = options.requests == 0;
  std::vector<double> times;
  double seconds = 0;
  while (timed || std::ssize(times) < options.requests) {
    const size_t index = times.size();
    seconds += gap(options, index, rate_at(options, progress_of(options, index, seconds)));
    if (timed && seconds > options.duration_seconds) break;
    if (std::ssize(times) == kMaxRequests) {
      return wrong(fmt::format("--rate times --duration is more than {} requests", kMaxRequests));
    }
    times.push_back(seconds);
  }
  if (!timed && options.ramp == Ramp::kNone && seconds > 0) {
    const double scale = static_cast<double>(options.requests) / options.rate_per_second / seconds;
    for (double& time : times) time *= scale;
  }
  return times;
}

}  // namespace quern
