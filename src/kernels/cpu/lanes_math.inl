// Exponentials over the lanes of lanes_*.inl, the same bits on every instruction set and in every
// lane. NaN stays NaN.

// 2^f for f in [-0.5, 0.5] as 1 + f * p(f): minimax of degree 6, relative error below 1.6e-8.
inline F exp2_fraction(F f) {
  F p = set1(0x1.41fbbcp-13f);
  p = fma(p, f, set1(0x1.5f3e52p-10f));
  p = fma(p, f, set1(0x1.3b2d4cp-7f));
  p = fma(p, f, set1(0x1.c6aee8p-5f));
  p = fma(p, f, set1(0x1.ebfbdcp-3f));
  p = fma(p, f, set1(0x1.62e430p-1f));
  return fma(p, f, set1(1.0f));
}

// Adding it to |x| < 2^22 rounds x to an integer n and leaves n + 127, the biased exponent of 2^n,
// in the lowest bits: 1.5 * 2^23 + 127.
constexpr float kRoundToExponent = 12583039.0f;

// 2^x for x <= 0, within 1 ulp; exactly 0 below 2^-125, so that no result is denormal.
inline F exp2_not_positive(F x) {
  const F rounded = add(x, set1(kRoundToExponent));
  const F n = sub(rounded, set1(kRoundToExponent));
  const F result = mul(exp2_fraction(sub(x, n)), from_bits(to_exponent(bits(rounded))));
  return select(less(x, set1(-125.0f)), set1(0.0f), result);
}

// e^x within 2 ulp, x clamped to [-87, 88].
inline F exp_clamped(F x) {
  const F clamped = min_of(set1(88.0f), max_of(set1(-87.0f), x));
  const F log2e = set1(0x1.715476p+0f);
  const F rounded = fma(clamped, log2e, set1(kRoundToExponent));
  const F n = sub(rounded, set1(kRoundToExponent));
  const F rest = set1(0x1.4ae0cp-26f);  // log2(e) - 0x1.715476p+0
  const F fraction = fma(clamped, rest, fma_minus(clamped, log2e, n));
  return mul(exp2_fraction(fraction), from_bits(to_exponent(bits(rounded))));
}
