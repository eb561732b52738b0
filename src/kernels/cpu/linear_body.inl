// The kernels of LinearOps over 16 lanes, written once and compiled for each instruction set inside
// its target region. The including file defines, in the same anonymous namespace:
//   F, I, B         16 floats, 16 int32, 64 bytes
//   f_*, i_*, b_*   operations on them, as named
//   kByteBase       what i_dot_bytes() takes off every code before it multiplies
//   kChains         independent sums for a single row, to hide the latency of a product; above 2,
//                   two to six rows have two each
//   kGroupedColumns  rows of a kernel
//   multiply_unit   the products of a few columns: linear_unit.inl, or one for matrix units

// What the sums of a group begin with: the zero points' part, and what i_dot_bytes() takes off.
template <WeightFormat kFormat, Offsets kOffsets, int M, int kSums>
[[gnu::always_inline]] inline void begin_group(I (&c)[M][kSums],
                                               const GroupedTile& t,
                                               const std::byte* record,
                                               const ActivationGroup* a,
                                               int64_t group_stride) {
  constexpr int kBase = kFormat == WeightFormat::kInt8 ? kByteBase : 0;
  QUERN_UNROLL for (int m = 0; m < M; ++m) {
    QUERN_UNROLL for (int i = 0; i < kSums; ++i) c[m][i] = i_zero();
  }
  if constexpr (kOffsets == Offsets::kOneZero) {
    QUERN_UNROLL for (int m = 0; m < M; ++m) {
      c[m][0] = i_set((kBase - t.zero) * a[m * group_stride].sum);
    }
  } else {
    if constexpr (kBase != 0) {
      QUERN_UNROLL for (int m = 0; m < M; ++m) c[m][0] = i_set(kBase * a[m * group_stride].sum);
    }
    if constexpr (kOffsets == Offsets::kZeros) {
      const I zero = i_from_u8(record + 2 * kPanelRows);
      const I pairs = i_or(zero, i_shift_left<16 + 7>(zero));  // (zero, 128 * zero)
      QUERN_UNROLL for (int m = 0; m < M; ++m) {
        c[m][0] = i_dot_halves(c[m][0], pairs, a[m * group_stride].negative_sum);
      }
    }
  }
}

// y += the group's sums, scaled and shifted as Backend::linear() states.
template <Offsets kOffsets, int M, int kSums>
[[gnu::always_inline]] inline void apply_group(F (&y)[M],
                                               const I (&c)[M][kSums],
                                               const GroupedTile& t,
                                               const std::byte* record,
                                               const ActivationGroup* a,
                                               int64_t group_stride) {
  const F scale = f_mul(f_from_f16(record), f_set(t.scale_unit));
  F minimum = f_zero();
  if constexpr (kOffsets == Offsets::kMinima)
    minimum = f_mul(f_from_f16(record + 2 * kPanelRows), f_set(t.minimum_unit));
  QUERN_UNROLL for (int m = 0; m < M; ++m) {
    I sum = c[m][0];
    QUERN_UNROLL for (int i = 1; i < kSums; ++i) sum = i_add(sum, c[m][i]);
    const ActivationGroup& at = a[m * group_stride];
    y[m] = f_fma(scale, f_mul(f_from_i(sum), f_set(at.step)), y[m]);
    if constexpr (kOffsets == Offsets::kMinima)
      y[m] = f_fma(minimum, f_set(at.sum_times_step), y[m]);
  }
}

// Bytes of `columns` columns of a panel.
template <WeightFormat kFormat>
constexpr int code_bytes(int columns) {
  if (kFormat == WeightFormat::kInt8) return columns * kPanelRows;
  return kFormat == WeightFormat::kInt4 ? columns * kPanelRows / 2 : columns * kPanelRows / 4 * 3;
}

// From the ActivationGroup of a group to that of the next.
template <int M, bool kTogether>
constexpr int64_t group_step() {
  if constexpr (kTogether) {
    return M;
  } else {
    return 1;
  }
}

// kTogether: the M rows of activations lie as one tile, [columns / 64][M][64], [groups][M]. A group
// is a multiple of kUnit columns.
template <WeightFormat kFormat, Offsets kOffsets, int kUnit, int M, bool kTogether>
void grouped_tile(const GroupedTile& t) {
  constexpr int kSums = M == 1 ? kChains : M <= 6 && kChains > 2 ? 2 : 1;
  constexpr int kProduct = std::min(kUnit, 32);  // columns of multiply_unit()
  constexpr int kProductBytes = code_bytes<kFormat>(kProduct);
  constexpr int kRecordBytes = kOffsets == Offsets::kZeros    ? 48
                               : kOffsets == Offsets::kMinima ? 64
                                                              : 32;
  const int64_t x_stride = kTogether ? 64 : t.x_stride;
  const int64_t group_stride = kTogether ? 1 : t.group_stride;
  F y[M];
  QUERN_UNROLL for (int m = 0; m < M; ++m) y[m] = f_zero();
  const uint8_t* codes = t.codes;
  const std::byte* record = t.scales;
  const ActivationGroup* a = t.x_groups;
  const uint8_t* ahead = t.ahead;
  int64_t column = 0;
  for (int64_t g = 0; g < t.groups; ++g, record += kRecordBytes, a += group_step<M, kTogether>()) {
    I c[M][kSums];
    begin_group<kFormat, kOffsets, M, kSums>(c, t, record, a, group_stride);
    for (const int64_t end = column + t.group_size; column < end; column += kUnit) {
      const int64_t at = kTogether ? (column >> 6) * 64 * M + (column & 63) : column;
      for (int i = 0; i < kUnit; i += kProduct, codes += kProductBytes) {
        prefetch<kProductBytes>(codes + kPrefetchBytes);
        if constexpr (kTogether) {
          QUERN_UNROLL for (int line = 0; line < kProductBytes / 64; ++line) {
            prefetch_far(ahead);
            ahead += t.ahead_stride;
          }
        }
        multiply_unit<kFormat, kProduct, M, kSums>(c, codes, t.x + at + i, x_stride);
      }
    }
    apply_group<kOffsets, M, kSums>(y, c, t, record, a, group_stride);
  }
  QUERN_UNROLL for (int m = 0; m < M; ++m) {
    if (t.bias != nullptr) y[m] = f_add(y[m], f_load(t.bias));
    f_store(t.y + m * t.y_stride, y[m]);
  }
}

// Where the codes of 16 columns from `column` go.
inline int8_t* codes_at(int8_t* codes, const QuantizedLayout& layout, int64_t column) {
  return codes + (column >> 6) * layout.block_stride + (column & 63);
}

// The bits of the largest |x|. They order like the numbers, NaN above infinity, so an integer
// maximum serves.
inline int32_t largest_bits(const float* x, int count) {
  const I magnitude = i_set(0x7fffffff);
  I largest = i_zero();
  for (int i = 0; i < count; i += kPanelRows)
    largest = i_max(largest, i_and(i_load(x + i), magnitude));
  return i_reduce_max(largest);
}

struct GroupStep {
  float step;
  float inverse;  // 0: all codes are
};

inline GroupStep group_step(int32_t bits) {
  constexpr int32_t kInfinity = 0x7f800000;
  const auto m = std::bit_cast<float>(bits);
  if (bits >= kInfinity) return {std::bit_cast<float>(0x7fc00000), 0};  // NaN
  if (m < kSmallestActivation) return {0, 0};
  return {m / 127.0f, 127.0f / m};
}

// Rounds the group of x from column `begin`; returns the sum of the codes.
inline int32_t quantize_group(
    const float* x, int64_t begin, float inverse, const QuantizedLayout& layout, int8_t* codes) {
  if (inverse == 0) {
    for (int i = 0; i < layout.group_size; i += kPanelRows)
      std::memset(codes_at(codes, layout, begin + i), layout.flip, kPanelRows);
    return 0;
  }
  const F factor = f_set(inverse);
  const I flip = i_set(layout.flip);
  I sum = i_zero();
  for (int i = 0; i < layout.group_size; i += kPanelRows) {
    const I code = i_round(f_mul(f_load(x + begin + i), factor));
    sum = i_add(sum, code);
    i_store_bytes(codes_at(codes, layout, begin + i), i_xor(code, flip));
  }
  return i_reduce_add(sum);
}

inline ActivationGroup activation_group(float step, int32_t sum) {
  const int32_t negative = -sum;
  const int32_t high = negative >> 7;
  return {.step = step,
          .sum_times_step = static_cast<float>(sum) * step,
          .negative_sum = static_cast<int32_t>((static_cast<uint32_t>(high) << 16) |
                                               static_cast<uint32_t>(negative & 127)),
          .sum = sum};
}

// The maxima of some groups first: what follows in a group waits long for its maximum.
inline void quantize_row(const float* x,
                         int64_t columns,
                         const QuantizedLayout& layout,
                         int8_t* codes,
                         ActivationGroup* groups) {
  constexpr int64_t kMaxima = 16;
  const int64_t size = layout.group_size;
  int64_t begin = 0;
  for (int64_t left = columns / size; left > 0; left -= kMaxima) {
    const int64_t count = std::min(left, kMaxima);
    int32_t bits[kMaxima];
    for (int64_t g = 0; g < count; ++g)
      bits[g] = largest_bits(x + begin + g * size, layout.group_size);
    for (int64_t g = 0; g < count; ++g, begin += size, groups += layout.group_stride) {
      const GroupStep step = group_step(bits[g]);
      *groups = activation_group(step.step, quantize_group(x, begin, step.inverse, layout, codes));
    }
  }
}

template <WeightFormat kFormat, Offsets kOffsets, int kUnit, int M>
constexpr GroupedKernel grouped_kernel() {
  if constexpr (M <= kGroupedColumns) return grouped_tile<kFormat, kOffsets, kUnit, M, false>;
  return nullptr;
}

#define QUERN_GROUPED_COLUMNS(format, offset, unit)                                           \
  {                                                                                           \
    grouped_kernel<format, offset, unit, 1>(), grouped_kernel<format, offset, unit, 2>(),     \
        grouped_kernel<format, offset, unit, 3>(), grouped_kernel<format, offset, unit, 4>(), \
        grouped_kernel<format, offset, unit, 5>(), grouped_kernel<format, offset, unit, 6>(), \
        grouped_kernel<format, offset, unit, 7>(), grouped_kernel<format, offset, unit, 8>()  \
  }
#define QUERN_GROUPED_UNITS(format, offset) \
  { QUERN_GROUPED_COLUMNS(format, offset, 16), QUERN_GROUPED_COLUMNS(format, offset, 32) }
#define QUERN_GROUPED_OFFSETS(format)                                                            \
  {                                                                                              \
    QUERN_GROUPED_UNITS(format, Offsets::kZeros), QUERN_GROUPED_UNITS(format, Offsets::kMinima), \
        QUERN_GROUPED_UNITS(format, Offsets::kOneZero)                                           \
  }

// What every table has; strips are added where they pay.
constexpr LinearOps kBaseOps = {
    .quantize = quantize_row,
    .grouped = {QUERN_GROUPED_OFFSETS(WeightFormat::kInt8),
                QUERN_GROUPED_OFFSETS(WeightFormat::kInt4),
                QUERN_GROUPED_OFFSETS(WeightFormat::kInt6)},
    .max_grouped_columns = kGroupedColumns,
    .together = {},
    .goes_together = false,
    .unpack = nullptr,
    .strip = {},
};
