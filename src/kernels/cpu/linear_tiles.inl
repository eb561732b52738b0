// The kernels of TileOps over 16 lanes and a tile machine, written once and compiled for AMX and
// for the machines that emulate it. The including file defines, in the same anonymous namespace,
// the lanes of linear_body.inl, i_dot_halves() and Tiles, whose functions are static:
//   configure(config), release(), zero<t>(), load<t>(at, stride), store<t>(at, stride),
//   dot<c, a, b>()
//
// What a step of 32 tokens x 32 rows of weights costs on Golden Cove, in cycles, in a group of 128:
// 8 products 128; 8 tile loads 64 of the two load ports; storing the 4 sums 64 of the store port;
// then for each of the 64 rows of sums a load, an int32 to float, a product with the token's step,
// and a fused product with the scales that reads and writes y: 96 of the two vector ports, 96 of
// the load ports, 64 of the store port. None is above 160, so all of it can hide behind 128 to 160
// cycles if sums become floats while the products of the next step run.
// In a group of 64 the products are 64 and storing, 128, is the limit: two groups that become
// floats together store y once, 96 for each group, and the vector ports, 96, are the limit as well.
// No order of loops goes below them, since the contract rounds each group.

#include "kernels/cpu/linear_six_bits.inl"
#include "kernels/cpu/linear_unpack.inl"

// Longer groups are multiplied in parts, so that the operands of a block stay in the first-level
// cache; the sums wait in `sums` meanwhile.
constexpr int kWholeGroup = 256;
constexpr int kPartColumns = 128;

// Two short groups become floats together: y is read and written once for both.
constexpr int kPairedGroup = 64;
constexpr int64_t kRowSums = kPanelRows;
constexpr int64_t kTileSums = kTileTokens * kRowSums;
constexpr int kStepTiles = 4;  // of sums
constexpr int64_t kStepSums = kStepTiles * kTileSums;

void configure_tiles(const TileShape& shape) { Tiles::configure(tile_config(shape)); }

void release_tiles() { Tiles::release(); }

template <WeightFormat kFormat>
inline void unpack_codes(const uint8_t* codes, int group_size, B base, int8_t* to) {
  if constexpr (kFormat == WeightFormat::kInt6) {
    for (int k = 0; k < group_size; k += 16, codes += 192) {
      prefetch<192>(codes + kPrefetchBytes);
      const SixBits six = load_six_bits(codes);
      QUERN_UNROLL for (int i = 0; i < 4; ++i, to += kTileRowBytes) {
        b_store(to, b_sub(six.columns[i], base));
      }
    }
    return;
  }
  constexpr int kColumns = kFormat == WeightFormat::kInt4 ? 8 : 4;  // of a block of 64 bytes
  for (int k = 0; k < group_size; k += kColumns, codes += 64) {
    prefetch<64>(codes + kPrefetchBytes);
    const B block = b_load(codes);
    if constexpr (kFormat == WeightFormat::kInt4) {
      b_store(to, b_sub(b_low_nibbles(block), base));
      to += kTileRowBytes;
      b_store(to, b_sub(b_high_nibbles(block), base));
    } else {
      b_store(to, b_sub(block, base));
    }
    to += kTileRowBytes;
  }
}

void unpack_tiles(const UnpackTiles& p) {
  const Segment& segment = *p.segment;
  const int group_size = segment.group_size;
  const auto group_bytes = static_cast<int64_t>(segment.panel_bytes()) / segment.groups();
  const auto* codes = reinterpret_cast<const uint8_t*>(segment.panel(p.segment_panel)) +
                      p.group_begin * group_bytes;
  const std::byte* record = segment.panel_scales(p.segment_panel) +
                            static_cast<size_t>(p.group_begin) * segment.record_bytes();
  int8_t* to = p.to.weights;
  for (int64_t g = 0; g < p.groups; ++g) {
    const B base = signed_base(segment, record);
    if (segment.format == WeightFormat::kInt8) {
      unpack_codes<WeightFormat::kInt8>(codes, group_size, base, to);
    } else if (segment.format == WeightFormat::kInt6) {
      unpack_codes<WeightFormat::kInt6>(codes, group_size, base, to);
    } else {
      unpack_codes<WeightFormat::kInt4>(codes, group_size, base, to);
    }
    unpack_record(segment, record,
                  {.scales = p.to.scales + g * kPanelRows,
                   .minima = p.to.minima + g * kPanelRows,
                   .pairs = p.to.pairs + g * kPanelRows});
    codes += group_bytes;
    record += segment.record_bytes();
    to += int64_t{group_size} * kPanelRows;
  }
}

// Tiles of sums that are complete and wait to become floats: those of the panels
// [panel_begin, panel_end) for one tile of activations, then for the next; the sums of the group
// after, if there are two, kStepSums further.
struct Waiting {
  int left = 0;
  int panel = 0;
  int panel_begin = 0;
  int panel_end = 0;
  int64_t group = 0;
  int groups = 1;
  int slot = 0;  // of the step
  const int32_t* sums = nullptr;
  const ActivationGroup* activations = nullptr;
  float* y = nullptr;
};

// What the rows of a tile of sums have in common.
struct Conversion {
  F scale;
  F minimum;
  I pairs;
};

// Adds one group of one row to y as Backend::linear() states.
template <bool kUncentred, GroupOffset kOffset>
inline F convert(const Conversion& to, const ActivationGroup& a, const int32_t* c, F y) {
  I sums = i_load(c);
  if constexpr (kUncentred) sums = i_dot_halves(sums, to.pairs, a.negative_sum);
  y = f_fma(to.scale, f_mul(f_from_i(sums), f_set(a.step)), y);
  if constexpr (kOffset == GroupOffset::kMinimum) y = f_fma(to.minimum, f_set(a.sum_times_step), y);
  return y;
}

template <bool kUncentred, GroupOffset kOffset, int kGroups>
inline void convert_row(const Conversion (&to)[kGroups],
                        const ActivationGroup* a,
                        int64_t tokens,
                        const int32_t* c,
                        float* y) {
  F sum = f_load(y);
  QUERN_UNROLL for (int g = 0; g < kGroups; ++g) {
    sum = convert<kUncentred, kOffset>(to[g], a[g * tokens], c + g * kStepSums, sum);
  }
  f_store(y, sum);
}

template <bool kUncentred, GroupOffset kOffset, int kGroups>
inline void convert_tile(const TileBlock& b, const Waiting& w) {
  const TilePanel& panel = b.panels[w.panel];
  Conversion to[kGroups];
  QUERN_UNROLL for (int g = 0; g < kGroups; ++g) {
    const int64_t at = (w.group + g) * kPanelRows;
    to[g].scale = f_load(panel.scales + at);
    to[g].minimum = kOffset == GroupOffset::kMinimum ? f_load(panel.minima + at) : f_zero();
    to[g].pairs = kUncentred ? i_load(panel.pairs + at) : i_zero();
  }
  const int64_t tokens = b.shape.tokens;
  const ActivationGroup* a = w.activations;
  const int32_t* c = w.sums;
  float* y = w.y;
  const auto* const end = a + tokens;
  for (; end - a >= 4; a += 4, c += 4 * kRowSums, y += 4 * kBlockWidth) {
    QUERN_UNROLL for (int i = 0; i < 4; ++i) {
      convert_row<kUncentred, kOffset>(to, a + i, tokens, c + i * kRowSums, y + i * kBlockWidth);
    }
  }
  for (; a != end; ++a, c += kRowSums, y += kBlockWidth)
    convert_row<kUncentred, kOffset>(to, a, tokens, c, y);
}

// Converts the next of the tiles that wait. A function of its own, since every step calls it after
// every product.
template <bool kUncentred, GroupOffset kOffset>
[[gnu::noinline]] void convert_waiting(const TileBlock& b, Waiting& w) {
  if (w.groups == 2) {
    convert_tile<kUncentred, kOffset, 2>(b, w);
  } else {
    convert_tile<kUncentred, kOffset, 1>(b, w);
  }
  --w.left;
  w.sums += kTileSums;
  w.y += kPanelRows;
  if (++w.panel < w.panel_end) return;
  w.y += b.shape.tokens * kBlockWidth - (w.panel_end - w.panel_begin) * kRowSums;
  w.activations += b.group_stride;
  w.panel = w.panel_begin;
}

template <bool kUncentred, GroupOffset kOffset>
inline void convert_next(const TileBlock& b, Waiting& w) {
  if (w.left > 0) convert_waiting<kUncentred, kOffset>(b, w);
}

// Groups [group, group + groups), or a part of one, for some tiles of activations and panels of
// weights.
struct TileStep {
  int64_t group = 0;
  int groups = 1;
  int begin = 0;  // columns of each group
  int end = 0;
  int tile = 0;
  int panel = 0;
  int slot = 0;  // the first tile of `sums` that is its own
};

template <int... kTiles>
inline void begin_sums(const int32_t* sums,
                       const TileStep& s,
                       std::integer_sequence<int, kTiles...>) {
  if (s.begin == 0) {
    (Tiles::zero<kTiles>(), ...);
  } else {
    (Tiles::load<kTiles>(sums + kTiles * kTileSums, kTileRowBytes), ...);
  }
}

template <int... kTiles>
inline void store_sums(int32_t* sums, std::integer_sequence<int, kTiles...>) {
  (Tiles::store<kTiles>(sums + kTiles * kTileSums, kTileRowBytes), ...);
}

inline const int8_t* activations_at(const TileBlock& b, int tile, int64_t column) {
  const int64_t block_bytes = int64_t{kTileColumns} * b.shape.tokens;
  return b.x + tile * b.x_stride + (column >> 6) * block_bytes + (column & 63);
}

// Panel kPanel of a step of T tiles x P panels: one product deep.
template <bool kUncentred, GroupOffset kOffset, int T, int P, int kPanel>
inline void multiply_panel(const TileBlock& b, const int8_t* weights, Waiting& w) {
  constexpr int kWeights = kWeightTile + kPanel % 2;
  Tiles::load<kWeights>(weights, kTileRowBytes);
  Tiles::dot<kPanel, kActivationTile, kWeights>();
  convert_next<kUncentred, kOffset>(b, w);
  if constexpr (T == 2) {
    Tiles::dot<P + kPanel, kActivationTile + 1, kWeights>();
    convert_next<kUncentred, kOffset>(b, w);
  }
}

template <bool kUncentred, GroupOffset kOffset, int T, int P, int... kPanels>
inline void multiply_deep(const TileBlock& b,
                          const TileStep& s,
                          int64_t column,
                          Waiting& w,
                          std::integer_sequence<int, kPanels...>) {
  Tiles::load<kActivationTile>(activations_at(b, s.tile, b.x_column + column), kTileRowBytes);
  if constexpr (T == 2) {
    Tiles::load<kActivationTile + 1>(activations_at(b, s.tile + 1, b.x_column + column),
                                     kTileRowBytes);
  }
  (multiply_panel<kUncentred, kOffset, T, P, kPanels>(
       b, b.panels[s.panel + kPanels].weights + column * kPanelRows, w),
   ...);
}

// Multiplies while the sums of the step before become floats.
template <bool kUncentred, GroupOffset kOffset, int T, int P>
void multiply_step(const TileBlock& b, const TileStep& s, Waiting& w) {
  constexpr std::make_integer_sequence<int, T * P> kAll;
  int32_t* sums = b.sums + s.slot * kTileSums;
  for (int64_t g = 0; g < s.groups; ++g) {
    begin_sums(sums + g * kStepSums, s, kAll);
    const int64_t column = (s.group + g) * b.group_size;
    for (int64_t k = column + s.begin; k < column + s.end; k += b.shape.depth) {
      multiply_deep<kUncentred, kOffset, T, P>(b, s, k, w, std::make_integer_sequence<int, P>());
    }
    store_sums(sums + g * kStepSums, kAll);
  }
  while (w.left > 0) convert_waiting<kUncentred, kOffset>(b, w);
  if (s.end < b.group_size) return;
  const int64_t tokens = b.shape.tokens;
  w = {.left = T * P,
       .panel = s.panel,
       .panel_begin = s.panel,
       .panel_end = s.panel + P,
       .group = s.group,
       .groups = s.groups,
       .slot = s.slot,
       .sums = sums,
       .activations = b.x_groups + s.tile * b.group_stride + s.group * tokens,
       .y = b.y + s.tile * tokens * kBlockWidth + s.panel * kRowSums};
}

using TileStepKernel = void (*)(const TileBlock&, const TileStep&, Waiting&);

// [tiles - 1][panels - 1]
template <bool kUncentred, GroupOffset kOffset>
constexpr TileStepKernel kTileSteps[2][kBlockPanels] = {
    {multiply_step<kUncentred, kOffset, 1, 1>, multiply_step<kUncentred, kOffset, 1, 2>,
     multiply_step<kUncentred, kOffset, 1, 3>, multiply_step<kUncentred, kOffset, 1, 4>},
    {multiply_step<kUncentred, kOffset, 2, 1>, multiply_step<kUncentred, kOffset, 2, 2>}};

// All steps of some groups or of a part of one. Sums that wait for the next part have tiles of
// their own, others those that the step before does not use.
template <bool kUncentred, GroupOffset kOffset>
inline void multiply_part(const TileBlock& b, TileStep s, Waiting& w) {
  const bool whole = s.begin == 0 && s.end == b.group_size;
  while (s.tile < b.tile_count) {
    const int tiles = b.tile_count - s.tile >= 2 ? 2 : 1;
    for (s.panel = 0; s.panel < b.panel_count;) {
      const int panels = std::min(kBlockPanels / tiles, b.panel_count - s.panel);
      if (whole) s.slot = w.slot == 0 ? 2 * kStepTiles : 0;
      kTileSteps<kUncentred, kOffset>[tiles - 1][panels - 1](b, s, w);
      s.panel += panels;
      if (!whole) s.slot += tiles * panels;
    }
    s.tile += tiles;
  }
}

template <bool kUncentred, GroupOffset kOffset>
void multiply_block(const TileBlock& b) {
  const int part = b.group_size <= kWholeGroup ? b.group_size : kPartColumns;
  const int together = b.group_size <= kPairedGroup ? 2 : 1;
  Waiting w;
  for (int64_t group = 0; group < b.groups; group += together) {
    const int groups = static_cast<int>(std::min<int64_t>(together, b.groups - group));
    for (int begin = 0; begin < b.group_size; begin += part) {
      const int end = std::min(begin + part, b.group_size);
      multiply_part<kUncentred, kOffset>(
          b, {.group = group, .groups = groups, .begin = begin, .end = end}, w);
    }
  }
  while (w.left > 0) convert_waiting<kUncentred, kOffset>(b, w);
}

void write_block(const TileOutput& o) {
  for (int64_t t = 0; t < o.tokens; ++t) {
    for (int64_t row = 0; row < o.rows; row += kPanelRows) {
      F sum = f_load(o.y + t * kBlockWidth + row);
      if (o.bias != nullptr) sum = f_add(sum, f_load(o.bias + row));
      float* out = o.out + t * o.out_stride + row;
      if (row + kPanelRows <= o.rows) {
        f_store(out, sum);
        continue;
      }
      float last[kPanelRows];
      f_store(last, sum);
      std::memcpy(out, last, static_cast<size_t>(o.rows - row) * sizeof(float));
    }
  }
}

constexpr TileOps kTileKernels = {
    .configure = configure_tiles,
    .release = release_tiles,
    .unpack = unpack_tiles,
    .multiply = {{multiply_block<false, GroupOffset::kZeroPoint>,
                  multiply_block<false, GroupOffset::kMinimum>},
                 {multiply_block<true, GroupOffset::kZeroPoint>,
                  multiply_block<true, GroupOffset::kMinimum>}},
    .write = write_block,
};
