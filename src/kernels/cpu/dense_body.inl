// The kernels of DenseOps over 16 lanes, written once and compiled for each instruction set inside
// its target region. The including file defines, in the same anonymous namespace, the lanes, and
//   kDenseTiles     registers of sums
//   kPairs          DenseOps::pairs
//   multiply_pairs  the products with weights of kBF16: dense_pairs.inl, or one by pairs

// y += the products with weights of kF32 or kF16.
template <WeightFormat kFormat, int P, int M>
inline void multiply_columns(F (&y)[P][M], const DenseTile& t) {
  constexpr int64_t kStep = kPanelRows * (kFormat == WeightFormat::kF32 ? 4 : 2);
  const std::byte* weights = t.weights;
  const auto* x = reinterpret_cast<const float*>(t.x);
  for (int64_t k = 0; k < t.depth; ++k, weights += kStep, x += M) {
    F w[P];
    QUERN_UNROLL for (int p = 0; p < P; ++p) {
      const std::byte* at = weights + p * t.panel_bytes;
      if constexpr (kFormat == WeightFormat::kF32) {
        w[p] = load(reinterpret_cast<const float*>(at));
      } else {
        w[p] = load_f16(at);
      }
    }
    QUERN_UNROLL for (int m = 0; m < M; ++m) {
      const F broadcast = set1(x[m]);
      QUERN_UNROLL for (int p = 0; p < P; ++p) y[p][m] = fma(w[p], broadcast, y[p][m]);
    }
  }
}

template <WeightFormat kFormat, int P, int M>
void dense_tile(const DenseTile& t) {
  F y[P][M];
  QUERN_UNROLL for (int p = 0; p < P; ++p) {
    QUERN_UNROLL for (int m = 0; m < M; ++m) {
      y[p][m] = t.resume != 0 ? load(t.y + m * t.y_stride + p * kPanelRows) : set1(0.0f);
    }
  }
  if constexpr (kFormat == WeightFormat::kBF16) {
    multiply_pairs<P, M>(y, t);
  } else {
    multiply_columns<kFormat, P, M>(y, t);
  }
  QUERN_UNROLL for (int p = 0; p < P; ++p) {
    QUERN_UNROLL for (int m = 0; m < M; ++m) {
      if (t.bias != nullptr) y[p][m] = add(y[p][m], load(t.bias + p * kPanelRows));
      store(t.y + m * t.y_stride + p * kPanelRows, y[p][m]);
    }
  }
}

template <WeightFormat kFormat, int P, int M>
constexpr DenseKernel dense_kernel() {
  if constexpr (P * M <= kDenseTiles) return dense_tile<kFormat, P, M>;
  return nullptr;
}

#define QUERN_DENSE_COLUMNS(format, panels)                                   \
  {                                                                           \
    dense_kernel<format, panels, 1>(), dense_kernel<format, panels, 2>(),     \
        dense_kernel<format, panels, 3>(), dense_kernel<format, panels, 4>(), \
        dense_kernel<format, panels, 5>(), dense_kernel<format, panels, 6>()  \
  }
#define QUERN_DENSE_PANELS(format) \
  { QUERN_DENSE_COLUMNS(format, 1), QUERN_DENSE_COLUMNS(format, 2), QUERN_DENSE_COLUMNS(format, 4) }

constexpr DenseOps kOps = {
    .kernels = {QUERN_DENSE_PANELS(WeightFormat::kF32), QUERN_DENSE_PANELS(WeightFormat::kBF16),
                QUERN_DENSE_PANELS(WeightFormat::kF16)},
    .max_columns = kDenseTiles < kMaxDenseColumns ? kDenseTiles : kMaxDenseColumns,
    .pairs = kPairs,
};
