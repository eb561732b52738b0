// The kernels of TileOps over 16 lanes and a tile machine, written once and compiled for AMX and
// for the machines that emulate it. The including file defines, in the same anonymous namespace,
// the lanes of linear_body.inl, i_dot_halves() and Tiles, whose functions are static:
//   configure(config), release(), zero<t>(), load<t>(at, stride), store<t>(at, stride),
//   dot<c, a, b>()
//
// What a step of 32 tokens x 32 rows of weights costs on Golden Cove, in cycles, in a group of 64:
// 4 products 64; 4 tile loads 32 of the two load ports; storing the 4 sums 64 of the store port;
// then for each of the 64 rows of sums a load, an int32 to float, a product with the token's step,
// and a fused product with the scales that reads and writes y: 96 of the two vector ports, 80 of
// the load ports, 64 of the store port. So the store port, 128, is the limit; in a group of 128,
// whose products take 128, both are. No order of loops goes below them, since the contract rounds
// each group. How near one comes is a matter of waiting: a product's sum is there 52 cycles later,
// and a store that waits for it holds up all behind it. So the sums of a step are stored as late as
// can be, each right before its register begins the next step, and become floats a step later
// still. Measured, operands in the first-level cache, ns for 64 x 64 x 64 (x 128): products and
// stores 92 (149), conversion alone 155, all 250 (280); sums stored behind their own products and
// converted a step later: 267 (329).

#include "kernels/cpu/linear_six_bits.inl"
#include "kernels/cpu/linear_unpack.inl"

// Longer groups are multiplied in parts, so that the operands of a block stay in the first-level
// cache; the sums wait in `sums` meanwhile.
constexpr int kWholeGroup = 256;
constexpr int kPartColumns = 128;

constexpr int64_t kTileSums = int64_t{kTileTokens} * kPanelRows;
constexpr int64_t kStepSums = 4 * kTileSums;

void configure_tiles(const TileShape& shape) { Tiles::configure(tile_config(shape)); }

void release_tiles() { Tiles::release(); }

template <WeightFormat kFormat>
inline void unpack_codes(const uint8_t* codes, int group_size, B base, int8_t* to) {
  if constexpr (kFormat == WeightFormat::kInt6) {
    for (int k = 0; k < group_size; k += 16, codes += 192) {
      const SixBits six = load_six_bits(codes);
      QUERN_UNROLL for (int i = 0; i < 4; ++i, to += kTileRowBytes) {
        b_store(to, b_sub(six.columns[i], base));
      }
    }
    return;
  }
  constexpr int kColumns = kFormat == WeightFormat::kInt4 ? 8 : 4;  // of a block of 64 bytes
  for (int k = 0; k < group_size; k += kColumns, codes += 64) {
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
  const auto group_bytes = static_cast<int64_t>(segment.panel_bytes()) / segment.groups;
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
    const int64_t at = (p.record_begin + g) * kPanelRows;
    unpack_record(
        segment, record,
        {.scales = p.to.scales + at, .minima = p.to.minima + at, .pairs = p.to.pairs + at});
    codes += group_bytes;
    record += segment.record_bytes();
    to += int64_t{group_size} * kPanelRows;
  }
}

// What the rows of a tile of sums have in common.
struct Conversion {
  F scale;
  F minimum;
  I pairs;
};

// Adds one group of one row to y as Backend::linear() states.
template <bool kUncentred, GroupOffset kOffset>
inline F convert(const Conversion& to, F step, const ActivationGroup& a, const int32_t* c, F y) {
  I sums = i_load(c);
  if constexpr (kUncentred) sums = i_dot_halves(sums, to.pairs, a.negative_sum);
  y = f_fma(to.scale, f_mul(f_from_i(sums), step), y);
  if constexpr (kOffset == GroupOffset::kMinimum) y = f_fma(to.minimum, f_set(a.sum_times_step), y);
  return y;
}

// One row of sums of P panels, which share the token's step.
template <bool kUncentred, GroupOffset kOffset, bool kFirst, int P>
inline void convert_row(const Conversion (&to)[P],
                        const ActivationGroup& a,
                        const int32_t* c,
                        float* y) {
  const F step = f_set(a.step);
  QUERN_UNROLL for (int p = 0; p < P; ++p) {
    const F before = kFirst ? f_zero() : f_load(y + p * kPanelRows);
    f_store(y + p * kPanelRows,
            convert<kUncentred, kOffset>(to[p], step, a, c + p * kTileSums, before));
  }
}

template <bool kUncentred, GroupOffset kOffset, bool kFirst, int P>
[[gnu::always_inline]] inline void convert_rows(
    const Conversion (&to)[P], const ActivationGroup* a, int tokens, const int32_t* c, float* y) {
  if (tokens == kTileTokens) {  // one long run of instructions is a quarter faster than a loop
    QUERN_UNROLL for (int i = 0; i < kTileTokens; ++i) {
      convert_row<kUncentred, kOffset, kFirst>(to, a[i], c + i * kPanelRows, y + i * kBlockWidth);
    }
    return;
  }
  for (int i = 0; i < tokens; ++i)
    convert_row<kUncentred, kOffset, kFirst>(to, a[i], c + i * kPanelRows, y + i * kBlockWidth);
}

// Sums of P panels from `panel` of the step for its tile `tile` of activations become floats.
template <bool kUncentred, GroupOffset kOffset, int P>
[[gnu::always_inline]] inline void convert_panels(const TileForm& form,
                                                  const TileSums& s,
                                                  int tile,
                                                  int panel) {
  Conversion to[P];
  QUERN_UNROLL for (int p = 0; p < P; ++p) {
    const TilePanel& from = s.panels[panel + p];
    const int64_t at = s.group * kPanelRows;
    to[p].scale = f_load(from.scales + at);
    to[p].minimum = kOffset == GroupOffset::kMinimum ? f_load(from.minima + at) : f_zero();
    to[p].pairs = kUncentred ? i_load(from.pairs + at) : i_zero();
  }
  const ActivationGroup* a = s.activations + tile * form.group_stride;
  const int32_t* c = s.sums + (tile * form.panels + panel) * kTileSums;
  float* y = s.y + int64_t{tile} * form.tokens * kBlockWidth + panel * kPanelRows;
  if (s.set_y) {
    convert_rows<kUncentred, kOffset, true>(to, a, form.tokens, c, y);
  } else {
    convert_rows<kUncentred, kOffset, false>(to, a, form.tokens, c, y);
  }
}

// Converts what can be once sum kSum of a step of P panels has been dealt with: panels go in pairs.
template <bool kUncentred, GroupOffset kOffset, int P, int kSum>
inline void convert_after(const TileForm& form, const TileSums& s) {
  constexpr int kTile = kSum / P;
  constexpr int kPanel = kSum % P;
  if (!s.complete) return;
  if constexpr (kPanel % 2 == 1) {
    convert_panels<kUncentred, kOffset, 2>(form, s, kTile, kPanel - 1);
  } else if constexpr (kPanel == P - 1) {
    convert_panels<kUncentred, kOffset, 1>(form, s, kTile, kPanel);
  }
}

inline const int8_t* activations_at(const TileBlock& b, int tile, int64_t column) {
  const int64_t block_bytes = int64_t{kTileColumns} * b.shape.tokens;
  return b.x + tile * b.x_stride + (column >> 6) * block_bytes + (column & 63);
}

// Columns [begin, end) of the weights of a block, all in one group.
struct TileColumns {
  int64_t group = 0;
  int64_t begin = 0;
  int64_t end = 0;
  bool resume = false;  // sums go on from where they lie, else from zero
};

// The product for sum kSum = tile * P + panel. Tiles of activations and weights are loaded where
// they are needed first, and stay for the sums after.
template <int T, int P, int kSum>
inline void multiply_tile(const TileBlock& b, const TileSums& s, int tile, int64_t column) {
  constexpr int kTile = kSum / P;
  constexpr int kPanel = kSum % P;
  constexpr int kWeights = kWeightTile + kPanel % 2;
  static_assert(T == 1 || P <= 2);
  if constexpr (kPanel == 0) {
    Tiles::load<kActivationTile + kTile>(activations_at(b, tile + kTile, b.x_column + column),
                                         kTileRowBytes);
  }
  if constexpr (kTile == 0) {
    Tiles::load<kWeights>(s.panels[kPanel].weights + column * kPanelRows, kTileRowBytes);
  }
  Tiles::dot<kSum, kActivationTile + kTile, kWeights>();
}

// A share of what is unpacked next: that of one sum of a group.
inline void fetch_next(const TileBlock& b, const uint8_t* next, int64_t group, int tile) {
  next += group * b.next_bytes + tile * b.next_share;
  for (int64_t at = 0; at < b.next_share; at += 64) prefetch_far(next + at);
}

// A share of the output of one tile and panel.
inline void fetch_output(const TileBlock& b, int64_t group, int tile, int64_t panel) {
  if (panel >= b.out_panels) return;
  const int64_t begin = (b.group_begin + group) * b.out_rows;
  const int64_t end = std::min<int64_t>(begin + b.out_rows, b.shape.tokens);
  const float* at = b.out + tile * b.shape.tokens * b.out_stride + panel * kPanelRows;
  for (int64_t row = begin; row < end; ++row) prefetch_to_write(at + row * b.out_stride);
}

// One step: sum after sum of the step before leaves its register and the new one begins in it,
// while those that were stored before become floats.
template <bool kUncentred, GroupOffset kOffset, int T, int P, int... kSums>
inline void multiply_step(const TileBlock& b,
                          const TileColumns& columns,
                          int tile,
                          const TileSums& sums,
                          TilePipeline& pipeline,
                          std::integer_sequence<int, kSums...> /*sums*/) {
  const auto begin = [&]<int kSum>() {
    Tiles::store<kSum>(pipeline.multiplied.sums + kSum * kTileSums, kTileRowBytes);
    if (columns.resume) {
      Tiles::load<kSum>(sums.sums + kSum * kTileSums, kTileRowBytes);
    } else {
      Tiles::zero<kSum>();
    }
    multiply_tile<T, P, kSum>(b, sums, tile, columns.begin);
    fetch_next(b, sums.panels[kSum % P].next, columns.group, tile + kSum / P);
    fetch_output(b, columns.group, tile + kSum / P, sums.panels - b.panels + kSum % P);
    convert_after<kUncentred, kOffset, P, kSum>(pipeline.form, pipeline.stored);
  };
  (begin.template operator()<kSums>(), ...);
  for (int64_t k = columns.begin + b.shape.depth; k < columns.end; k += b.shape.depth)
    (multiply_tile<T, P, kSums>(b, sums, tile, k), ...);
  pipeline.stored = pipeline.multiplied;
  pipeline.multiplied = sums;
}

template <bool kUncentred, GroupOffset kOffset, int P, int... kSums>
inline void drain_steps(const TilePipeline& p, std::integer_sequence<int, kSums...> /*sums*/) {
  (convert_after<kUncentred, kOffset, P, kSums>(p.form, p.stored), ...);
  (Tiles::store<kSums>(p.multiplied.sums + kSums * kTileSums, kTileRowBytes), ...);
  (convert_after<kUncentred, kOffset, P, kSums>(p.form, p.multiplied), ...);
}

// Tiles [tile_begin, tile_end) of activations times panels [panel_begin, panel_end), which divide
// into steps of one form.
struct TileRegion {
  int tile_begin = 0;
  int tile_end = 0;
  int panel_begin = 0;
  int panel_end = 0;
};

// All steps of some columns. Sums that wait for the rest of their group have places of their own,
// in turns with those of the group before; others alternate between two.
template <bool kUncentred, GroupOffset kOffset, int T, int P>
inline void multiply_columns(const TileBlock& b,
                             const TileRegion& r,
                             const TileColumns& columns,
                             TilePipeline& pipeline) {
  constexpr std::make_integer_sequence<int, T * P> kSums;
  const int64_t group = columns.group;
  const bool whole = b.group_size <= kWholeGroup;
  const bool complete = columns.end == (group + 1) * b.group_size;
  int32_t* own = b.sums + (group & 1) * kBlockSums;
  for (int tile = r.tile_begin; tile < r.tile_end; tile += T) {
    for (int panel = r.panel_begin; panel < r.panel_end; panel += P, own += T * P * kTileSums) {
      int32_t* turn = b.sums + (pipeline.multiplied.sums == b.sums ? kStepSums : 0);
      const TileSums sums = {
          .complete = complete,
          .set_y = b.sets_y && b.group_begin + group == 0,
          .group = b.group_begin + group,
          .panels = b.panels + panel,
          .sums = whole ? turn : own,
          .activations = b.x_groups + tile * b.group_stride + group * b.shape.tokens,
          .y = b.y + int64_t{tile} * b.shape.tokens * kBlockWidth + int64_t{panel} * kPanelRows};
      multiply_step<kUncentred, kOffset, T, P>(b, columns, tile, sums, pipeline, kSums);
    }
  }
}

template <bool kUncentred, GroupOffset kOffset, int T, int P>
void multiply_region(const TileBlock& b, const TileRegion& region, TilePipeline& pipeline) {
  TilePipeline local = pipeline;
  const int part = b.group_size <= kWholeGroup ? b.group_size : kPartColumns;
  for (int64_t group = 0; group < b.groups; ++group) {
    const int64_t end = (group + 1) * b.group_size;
    for (int64_t k = end - b.group_size; k < end; k += part) {
      const TileColumns columns = {.group = group,
                                   .begin = k,
                                   .end = std::min(k + part, end),
                                   .resume = k > end - b.group_size};
      multiply_columns<kUncentred, kOffset, T, P>(b, region, columns, local);
    }
  }
  pipeline = local;
}

template <bool kUncentred, GroupOffset kOffset, int T, int P>
void drain_form(const TilePipeline& pipeline) {
  drain_steps<kUncentred, kOffset, P>(pipeline, std::make_integer_sequence<int, T * P>());
}

struct FormKernels {
  void (*multiply)(const TileBlock&, const TileRegion&, TilePipeline&);
  void (*drain)(const TilePipeline&);
};

template <bool kUncentred, GroupOffset kOffset, int T, int P>
constexpr FormKernels kForm = {multiply_region<kUncentred, kOffset, T, P>,
                               drain_form<kUncentred, kOffset, T, P>};

// [tiles - 1][panels - 1]
template <bool kUncentred, GroupOffset kOffset>
constexpr FormKernels kForms[2][kBlockPanels] = {
    {kForm<kUncentred, kOffset, 1, 1>, kForm<kUncentred, kOffset, 1, 2>,
     kForm<kUncentred, kOffset, 1, 3>, kForm<kUncentred, kOffset, 1, 4>},
    {kForm<kUncentred, kOffset, 2, 1>, kForm<kUncentred, kOffset, 2, 2>}};

template <bool kUncentred, GroupOffset kOffset>
void drain(TilePipeline& pipeline) {
  const TileForm& form = pipeline.form;
  if (form.tiles == 0) return;
  kForms<kUncentred, kOffset>[form.tiles - 1][form.panels - 1].drain(pipeline);
  pipeline = {};
}

// A region of another form than the one before waits until that one is done.
template <bool kUncentred, GroupOffset kOffset>
void run_region(
    const TileBlock& b, const TileRegion& r, int tiles, int panels, TilePipeline& pipeline) {
  if (r.tile_begin >= r.tile_end || r.panel_begin >= r.panel_end) return;
  if (pipeline.form.tiles != tiles || pipeline.form.panels != panels) {
    drain<kUncentred, kOffset>(pipeline);
    pipeline.form = {tiles, panels, b.shape.tokens, b.group_stride};
    pipeline.multiplied.sums = b.sums + 2 * kBlockSums;  // where nobody reads
  }
  kForms<kUncentred, kOffset>[tiles - 1][panels - 1].multiply(b, r, pipeline);
}

template <bool kUncentred, GroupOffset kOffset>
void multiply_block(const TileBlock& b, TilePipeline& pipeline) {
  const auto run = &run_region<kUncentred, kOffset>;
  const int tile_pairs = b.tile_count & ~1;
  const int panel_pairs = b.panel_count & ~1;
  run(b, {0, tile_pairs, 0, panel_pairs}, 2, 2, pipeline);
  run(b, {0, tile_pairs, panel_pairs, b.panel_count}, 2, 1, pipeline);
  run(b, {tile_pairs, b.tile_count, 0, b.panel_count}, 1, b.panel_count, pipeline);
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

template <bool kUncentred, GroupOffset kOffset>
constexpr TileKernels kTileKernelsOf = {multiply_block<kUncentred, kOffset>,
                                        drain<kUncentred, kOffset>};

constexpr TileOps kTileKernels = {
    .configure = configure_tiles,
    .release = release_tiles,
    .unpack = unpack_tiles,
    .kernels = {{kTileKernelsOf<false, GroupOffset::kZeroPoint>,
                 kTileKernelsOf<false, GroupOffset::kMinimum>},
                {kTileKernelsOf<true, GroupOffset::kZeroPoint>,
                 kTileKernelsOf<true, GroupOffset::kMinimum>}},
    .write = write_block,
};
