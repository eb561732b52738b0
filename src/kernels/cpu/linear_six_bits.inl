// Codes of kInt6 as bytes, over the lanes of linear_body.inl.

// The four vectors of four columns of a block of kInt6.
struct SixBits {
  B columns[4];
};

inline SixBits load_six_bits(const uint8_t* codes) {
  const B first = b_load(codes);
  const B second = b_load(codes + 64);
  const B pairs = b_load(codes + 128);
  return {{b_six_bits<0>(b_low_nibbles(first), pairs), b_six_bits<1>(b_high_nibbles(first), pairs),
           b_six_bits<2>(b_low_nibbles(second), pairs),
           b_six_bits<3>(b_high_nibbles(second), pairs)}};
}
