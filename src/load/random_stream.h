// A sequence of random variates that depends on a seed, a purpose and an index alone, so that what
// is drawn for one request never depends on another.
#pragma once

#include <cstdint>

#include "base/random.h"

namespace quern {

// What the numbers are for: each purpose has a sequence of its own.
enum class RandomPurpose : uint64_t {
  kArrival = 1,
  kInputTokens,
  kOutputTokens,
  kWords,
  kPrefix,
  kBehaviour
};

class RandomStream {
 public:
  RandomStream(uint64_t seed, RandomPurpose purpose, uint64_t index)
      : key_(random_bits(seed, static_cast<uint64_t>(purpose), index)) {}

  // In [0, 1).
  double uniform() { return random_uniform(key_, 0, position_++); }

  // In [0, count). Requires count > 0; the bias of count / 2^64 is far below what a run can show.
  uint64_t below(uint64_t count) { return random_bits(key_, 0, position_++) % count; }

  // Mean 0, deviation 1 (Box and Muller 1958).
  double normal();

  // Mean `shape`, variance `shape` (Marsaglia and Tsang 2000; their boost below shape 1).
  // Requires shape > 0.
  double gamma(double shape);

 private:
  uint64_t key_;
  uint64_t position_ = 0;
};

}  // namespace quern
