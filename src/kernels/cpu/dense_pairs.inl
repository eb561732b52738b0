// Products with weights of kBF16 where no instruction multiplies pairs: in its order, the second of
// a pair and then the first.

constexpr bool kPairs = false;

// What the first and the second halves of 16 pairs stand for.
inline F load_first(const std::byte* at) { return from_bits(upper_halves(load_i(at))); }
inline F load_second(const std::byte* at) {
  return from_bits(and_i(load_i(at), set1_i(static_cast<int32_t>(0xffff0000u))));
}

template <int P, int M>
inline void multiply_pairs(F (&y)[P][M], const DenseTile& t) {
  const std::byte* weights = t.weights;
  const auto* x = reinterpret_cast<const float*>(t.x);
  for (int64_t k = 0; k < t.depth; k += 2, weights += 4 * kPanelRows, x += 2 * M) {
    F w[P];
    QUERN_UNROLL for (int p = 0; p < P; ++p) w[p] = load_second(weights + p * t.panel_bytes);
    QUERN_UNROLL for (int m = 0; m < M; ++m) {
      const F broadcast = set1(x[M + m]);
      QUERN_UNROLL for (int p = 0; p < P; ++p) y[p][m] = fma(w[p], broadcast, y[p][m]);
    }
    QUERN_UNROLL for (int p = 0; p < P; ++p) w[p] = load_first(weights + p * t.panel_bytes);
    QUERN_UNROLL for (int m = 0; m < M; ++m) {
      const F broadcast = set1(x[m]);
      QUERN_UNROLL for (int p = 0; p < P; ++p) y[p][m] = fma(w[p], broadcast, y[p][m]);
    }
  }
}
