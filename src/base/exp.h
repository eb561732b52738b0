// A float32 exponential of negative numbers that vectorises and gives the same bits on every
// machine.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

namespace quern {

// e^x for x <= 0 with a relative error below 2^-22: x = n ln2 + r with |r| <= ln2 / 2, e^r by its
// Taylor polynomial, whose next term is r^8 / 8! < 6e-9. Below -87 it answers e^-87. Never fails.
inline float exp_negative(float x) {
  constexpr float kLog2E = 1.44269504f;
  constexpr float kLn2High = 0.693359375f;  // 9 bits, so n * kLn2High is exact
  constexpr float kLn2Low = -2.12194440e-4f;
  constexpr float kRound = 0x1.8p23f;  // adding it rounds to an integer
  x = std::max(x, -87.0f);
  const float n = (x * kLog2E + kRound) - kRound;
  const float r = (x - n * kLn2High) - n * kLn2Low;
  float e = 1.0f / 5040;
  e = e * r + 1.0f / 720;
  e = e * r + 1.0f / 120;
  e = e * r + 1.0f / 24;
  e = e * r + 1.0f / 6;
  e = e * r + 0.5f;
  e = e * r + 1.0f;
  e = e * r + 1.0f;
  return e * std::bit_cast<float>((static_cast<int32_t>(n) + 127) << 23);
}

}  // namespace quern
