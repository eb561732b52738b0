// A counter-based random generator: the same (seed, stream, position) gives the same number on any
// machine, in any order and on any thread.
#pragma once

#include <cstdint>

namespace quern {

// SplitMix64's finaliser (Steele, Lea, Flood 2014): a bijection that mixes every bit.
constexpr uint64_t mix64(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

constexpr uint64_t random_bits(uint64_t seed, uint64_t stream, uint64_t position) {
  return mix64(mix64(mix64(seed) ^ stream) ^ position);
}

// Uniform in [0, 1), 53 bits.
constexpr double random_uniform(uint64_t seed, uint64_t stream, uint64_t position) {
  return static_cast<double>(random_bits(seed, stream, position) >> 11) * 0x1p-53;
}

}  // namespace quern
