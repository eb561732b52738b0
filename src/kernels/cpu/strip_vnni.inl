// Strips of LinearOps on AVX-512 VNNI: unpacking, and the tile of 4 panels x 6 rows.

#include "kernels/cpu/linear_unpack.inl"

// The weights of one group, signed, every `stride` bytes; returns their sums.
template <WeightFormat kFormat>
inline I unpack_codes(const uint8_t* codes, int group_size, B base, int8_t* to, int64_t stride) {
  const B ones = _mm512_set1_epi8(1);
  I sum = i_zero();
  for (int k = 0; k < group_size; codes += 64) {
    const B block = b_load(codes);
    if constexpr (kFormat == WeightFormat::kInt8) {
      const B weights = _mm512_sub_epi8(block, base);
      _mm512_store_si512(to, weights);
      sum = _mm512_dpbusd_epi32(sum, ones, weights);
      to += stride;
      k += 4;
    } else if constexpr (kFormat == WeightFormat::kInt6) {
      const SixBits six = load_six_bits(codes);
      codes += 128;
      QUERN_UNROLL for (int i = 0; i < 4; ++i, to += stride) {
        const B weights = _mm512_sub_epi8(six.columns[i], base);
        _mm512_store_si512(to, weights);
        sum = _mm512_dpbusd_epi32(sum, ones, weights);
      }
      k += 16;
    } else {
      const B low = _mm512_sub_epi8(b_low_nibbles(block), base);
      const B high = _mm512_sub_epi8(b_high_nibbles(block), base);
      _mm512_store_si512(to, low);
      _mm512_store_si512(to + stride, high);
      sum = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(sum, ones, low), ones, high);
      to += 2 * stride;
      k += 8;
    }
  }
  return sum;
}

inline I unpack_group(const Segment& segment,
                      const uint8_t* codes,
                      const std::byte* record,
                      int8_t* to,
                      int64_t stride) {
  const B base = signed_base(segment, record);
  switch (segment.format) {
    case WeightFormat::kInt8:
      return unpack_codes<WeightFormat::kInt8>(codes, segment.group_size, base, to, stride);
    case WeightFormat::kInt6:
      return unpack_codes<WeightFormat::kInt6>(codes, segment.group_size, base, to, stride);
    default:
      return unpack_codes<WeightFormat::kInt4>(codes, segment.group_size, base, to, stride);
  }
}

void unpack_panel(const UnpackPanel& p) {
  const Segment& segment = *p.segment;
  const int64_t stride = int64_t{64} * p.panels;
  const auto group_bytes = static_cast<int64_t>(segment.panel_bytes()) / segment.groups;
  const auto* codes = reinterpret_cast<const uint8_t*>(segment.panel(p.segment_panel)) +
                      p.group_begin * group_bytes;
  const std::byte* record = segment.panel_scales(p.segment_panel) +
                            static_cast<size_t>(p.group_begin) * segment.record_bytes();
  int8_t* to = p.strip.weights + 64 * p.panel;
  int64_t at = kPanelRows * p.panel;
  for (int64_t g = 0; g < p.groups; ++g) {
    const I sum = unpack_group(segment, codes, record, to, stride);
    _mm512_store_si512(p.strip.offsets + at, _mm512_sub_epi32(i_zero(), i_shift_left<7>(sum)));
    unpack_record(segment, record,
                  {.scales = p.strip.scales + at,
                   .minima = p.strip.minima + at,
                   .pairs = p.strip.pairs + at});
    codes += group_bytes;
    record += segment.record_bytes();
    to += stride * (segment.group_size / 4);
    at += int64_t{kPanelRows} * p.panels;
  }
}

// The sums of one group, scaled and shifted as Backend::linear() states, added to the tile.
template <bool kUncentred, GroupOffset kOffset, int P, int M>
inline void apply_strip_group(const StripTile& t,
                              I (&c)[P][M],
                              float (&y)[M][P * kPanelRows],
                              int64_t group) {
  const int64_t at = group * P * kPanelRows;
  QUERN_UNROLL for (int m = 0; m < M; ++m) {
    const ActivationGroup& a = t.x_groups[m * t.group_stride + group];
    const F step = f_set(a.step);
    QUERN_UNROLL for (int p = 0; p < P; ++p) {
      if constexpr (kUncentred) {
        c[p][m] = i_dot_halves(c[p][m], _mm512_load_si512(t.strip.pairs + at + p * kPanelRows),
                               a.negative_sum);
      }
      float* sum = y[m] + p * kPanelRows;
      const F scale = f_load(t.strip.scales + at + p * kPanelRows);
      F next = f_fma(scale, f_mul(f_from_i(c[p][m]), step), f_load(sum));
      if constexpr (kOffset == GroupOffset::kMinimum) {
        const F minimum = f_load(t.strip.minima + at + p * kPanelRows);
        next = f_fma(minimum, f_set(a.sum_times_step), next);
      }
      f_store(sum, next);
    }
  }
}

template <int P, int M>
inline void multiply_strip_group(
    I (&c)[P][M], const int8_t* weights, const uint8_t* x, int64_t x_stride, int group_size) {
  for (int k = 0; k < group_size; k += 4, weights += 64 * P) {
    B w[P];
    QUERN_UNROLL for (int p = 0; p < P; ++p) w[p] = _mm512_load_si512(weights + 64 * p);
    QUERN_UNROLL for (int m = 0; m < M; ++m) {
      const B broadcast = i_set(load_i32(reinterpret_cast<const int8_t*>(x + m * x_stride + k)));
      QUERN_UNROLL for (int p = 0; p < P; ++p) {
#ifdef __clang__
        c[p][m] = _mm512_dpbusd_epi32(c[p][m], broadcast, w[p]);
#else
        asm("vpdpbusd %2, %1, %0" : "+v"(c[p][m]) : "v"(broadcast), "v"(w[p]));
#endif
      }
    }
  }
}

template <bool kUncentred, GroupOffset kOffset, int P, int M>
void strip_tile(const StripTile& t) {
  alignas(64) float y[M][P * kPanelRows];
  QUERN_UNROLL for (int m = 0; m < M; ++m) {
    QUERN_UNROLL for (int p = 0; p < P; ++p) {
      const int j = p * kPanelRows;
      f_store(y[m] + j, t.resume != 0 ? f_load(t.y + m * t.y_stride + j) : f_zero());
    }
  }
  const int8_t* weights = t.strip.weights;
  const uint8_t* x = t.x;
  for (int64_t g = 0; g < t.groups; ++g) {
    I c[P][M];
    QUERN_UNROLL for (int p = 0; p < P; ++p) {
      const I start = _mm512_load_si512(t.strip.offsets + (g * P + p) * kPanelRows);
      QUERN_UNROLL for (int m = 0; m < M; ++m) c[p][m] = start;
    }
    multiply_strip_group<P, M>(c, weights, x, t.x_stride, t.group_size);
    weights += int64_t{t.group_size} * P * kPanelRows;
    x += t.group_size;
    apply_strip_group<kUncentred, kOffset, P, M>(t, c, y, g);
  }
  QUERN_UNROLL for (int m = 0; m < M; ++m) {
    QUERN_UNROLL for (int p = 0; p < P; ++p) {
      F sum = f_load(y[m] + p * kPanelRows);
      if (t.bias != nullptr) sum = f_add(sum, f_load(t.bias + p * kPanelRows));
      f_store(t.y + m * t.y_stride + p * kPanelRows, sum);
    }
  }
}

template <bool kUncentred, GroupOffset kOffset, int kWidth>
constexpr void add_strip_width(LinearOps& ops) {
  constexpr int kPanels = 1 << kWidth;
  auto& to = ops.strip[kUncentred ? 1 : 0][kOffset == GroupOffset::kMinimum ? 1 : 0][kWidth];
  to[0] = strip_tile<kUncentred, kOffset, kPanels, 1>;
  to[1] = strip_tile<kUncentred, kOffset, kPanels, 2>;
  to[2] = strip_tile<kUncentred, kOffset, kPanels, 3>;
  to[3] = strip_tile<kUncentred, kOffset, kPanels, 4>;
  to[4] = strip_tile<kUncentred, kOffset, kPanels, 5>;
  to[5] = strip_tile<kUncentred, kOffset, kPanels, 6>;
}

template <bool kUncentred, GroupOffset kOffset>
constexpr void add_strip_widths(LinearOps& ops) {
  add_strip_width<kUncentred, kOffset, 0>(ops);
  add_strip_width<kUncentred, kOffset, 1>(ops);
  add_strip_width<kUncentred, kOffset, 2>(ops);
}

constexpr void add_strip_kernels(LinearOps& ops) {
  add_strip_widths<false, GroupOffset::kZeroPoint>(ops);
  add_strip_widths<true, GroupOffset::kZeroPoint>(ops);
  add_strip_widths<false, GroupOffset::kMinimum>(ops);
  add_strip_widths<true, GroupOffset::kMinimum>(ops);
}
