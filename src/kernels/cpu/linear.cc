#include "kernels/cpu/linear.h"

#include <algorithm>

#include "base/float16.h"
#include "kernels/cpu/dense_ops.h"
#include "kernels/cpu/linear_call.h"
#include "kernels/cpu/linear_ops.h"
#include "kernels/cpu/linear_strips.h"
#include "kernels/cpu/linear_tiles.h"
#include "kernels/cpu/output_tile.h"
#include "kernels/cpu/tile_ops.h"

namespace quern::cpu {

extern const LinearOps kLinearScalar, kLinearNeon, kLinearI8mm, kLinearAvx2, kLinearAvxVnni,
    kLinearAvx512, kLinearAvx512Vnni;
const IsaTables<LinearOps> kLinearOps = isa_tables<LinearOps>({
    {Isa::kScalar, &kLinearScalar},
    {Isa::kNeon, QUERN_ARM_TABLE(kLinearNeon)},
    {Isa::kI8mm, QUERN_ARM_TABLE(kLinearI8mm)},
    {Isa::kAvx2, QUERN_X86_TABLE(kLinearAvx2)},
    {Isa::kAvxVnni, QUERN_X86_TABLE(kLinearAvxVnni)},
    {Isa::kAvx512, QUERN_X86_TABLE(kLinearAvx512)},
    {Isa::kAvx512Vnni, QUERN_X86_TABLE(kLinearAvx512Vnni)},
});

extern const DenseOps kDenseScalar, kDenseNeon, kDenseAvx2, kDenseAvx512, kDenseAvx512Bf16;
const IsaTables<DenseOps> kDenseOps = isa_tables<DenseOps>({
    {Isa::kScalar, &kDenseScalar},
    {Isa::kNeon, QUERN_ARM_TABLE(kDenseNeon)},
    {Isa::kAvx2, QUERN_X86_TABLE(kDenseAvx2)},
    {Isa::kAvx512, QUERN_X86_TABLE(kDenseAvx512)},
    {Isa::kAvx512Bf16, QUERN_X86_TABLE(kDenseAvx512Bf16)},
});

namespace {

constexpr int64_t kMinChunkBytes = int64_t{16} << 10;      // work for about a microsecond
constexpr int64_t kMaxChunkBytes = int64_t{64} << 10;      // stays in L2 while rows pass over it
constexpr int64_t kMaxTogetherBytes = int64_t{128} << 10;  // so does the one that follows
constexpr int64_t kChunksPerThread = 8;                    // leave a slow core less
constexpr int64_t kActivationsPerChunk = int64_t{32} << 10;
constexpr int64_t kCodeBlock = 64;    // columns that stay together in every layout
constexpr int64_t kDenseDepth = 512;  // 64 rows x 512 x 4 bytes = 128 KB of L2

Way way_for(const LinearKernels& kernels, const CpuWeight& weight, int64_t tokens, int threads) {
  if (uses_tiles(kernels, weight, tokens)) return Way::kTiles;
  if (uses_strips(*kernels.ops, weight, tokens, threads)) return Way::kStrips;
  return kernels.ops->goes_together && tokens >= kMinTogether ? Way::kTogether : Way::kRows;
}

// Rows of activations start in different sets of the first-level cache.
int64_t code_stride(int64_t columns) { return (columns + 63) / 64 * 64 + 64; }

ActivationLayout layout_for(Way way, int64_t tokens, int64_t columns) {
  if (way == Way::kTiles || way == Way::kTogether) return tile_layout(tokens, columns);
  return {.tiles = tokens,
          .stride = code_stride(columns),
          .flip = static_cast<uint8_t>(way == Way::kStrips ? 0x80 : 0)};
}

void quantize_rows(ThreadPool& pool, const Call& call, LinearScratch::Quantized& to, Tensor x) {
  const ActivationLayout& layout = call.layout;
  const int64_t columns = x.row_elements();
  const int64_t groups = columns / to.group_size;
  const int64_t rows = layout.tiles * layout.tokens;
  grow(to.codes, static_cast<size_t>(layout.tiles * layout.stride));
  grow(to.groups, static_cast<size_t>(rows * groups) * sizeof(ActivationGroup));
  const QuantizedLayout row_layout{.group_size = to.group_size,
                                   .flip = layout.flip,
                                   .block_stride = kCodeBlock * layout.tokens,
                                   .group_stride = layout.tokens};
  // The groups of neighbours in a tile share a line of memory, which one worker should write.
  const int64_t together = std::min<int64_t>(layout.tokens, 64 / sizeof(ActivationGroup));
  const int64_t chunk = ceil_div(std::max<int64_t>(1, kActivationsPerChunk / columns), together);
  pool.for_each_chunk(x.rows(), chunk * together, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t tile = t / layout.tokens;
      const int64_t row = t % layout.tokens;
      call.ops().quantize(x.f32_row(t), columns, row_layout,
                          to.codes.as<int8_t>() + tile * layout.stride + row * kCodeBlock,
                          to.groups.as<ActivationGroup>() + tile * groups * layout.tokens + row);
    }
  });
}

// Columns of a row of activations that meets BF16.
int64_t even(int64_t columns) { return (columns + 1) / 2 * 2; }

// to[k * rows + row] = x[row][k].
void transpose_tile(float* to, Tensor x, int64_t begin, int64_t rows) {
  for (int64_t row = 0; row < rows; ++row) {
    const float* from = x.f32_row(begin + row);
    for (int64_t k = 0; k < x.row_elements(); ++k) to[k * rows + row] = from[k];
  }
}

// The same rounded to BF16, with a column of zeros where that makes their number even.
void transpose_rounded_tile(float* to, Tensor x, int64_t begin, int64_t rows) {
  const int64_t columns = x.row_elements();
  for (int64_t row = 0; row < rows; ++row) {
    const float* from = x.f32_row(begin + row);
    for (int64_t k = 0; k < columns; ++k) to[k * rows + row] = bf16_to_f32(f32_to_bf16(from[k]));
    if (columns % 2 != 0) to[columns * rows + row] = 0;
  }
}

// The same in pairs: to[k / 2 * rows + row] has columns k and k + 1.
void transpose_pairs_tile(uint32_t* to, Tensor x, int64_t begin, int64_t rows) {
  const int64_t columns = x.row_elements();
  for (int64_t row = 0; row < rows; ++row) {
    const float* from = x.f32_row(begin + row);
    for (int64_t k = 0; k + 1 < columns; k += 2)
      to[k / 2 * rows + row] = bf16_pair(from[k], from[k + 1]);
    if (columns % 2 != 0) to[columns / 2 * rows + row] = bf16_pair(from[columns - 1], 0);
  }
}

// Tiles of up to max_columns rows, transposed, one after another.
void transpose_rows(ThreadPool& pool, const Call& call, Tensor x) {
  const int64_t columns = x.row_elements();
  grow(call.scratch.columns, static_cast<size_t>(x.rows() * columns) * sizeof(float));
  auto* to = call.scratch.columns.as<float>();
  pool.for_each_chunk(x.rows(), block_size(x.rows(), call.dense().max_columns),
                      [&](int64_t begin, int64_t end, int) {
                        transpose_tile(to + begin * columns, x, begin, end - begin);
                      });
}

void transpose_bf16_rows(ThreadPool& pool, const Call& call, Tensor x) {
  const int64_t columns = even(x.row_elements());
  const bool pairs = call.dense().pairs;
  grow(call.scratch.bf16, static_cast<size_t>(x.rows() * columns) * (pairs ? 2 : 4));
  pool.for_each_chunk(x.rows(), block_size(x.rows(), call.dense().max_columns),
                      [&](int64_t begin, int64_t end, int) {
                        if (pairs) {
                          auto* to = call.scratch.bf16.as<uint32_t>() + begin * columns / 2;
                          transpose_pairs_tile(to, x, begin, end - begin);
                        } else {
                          auto* to = call.scratch.bf16.as<float>() + begin * columns;
                          transpose_rounded_tile(to, x, begin, end - begin);
                        }
                      });
}

void prepare(ThreadPool& pool, const Call& call, Tensor x) {
  LinearScratch& scratch = call.scratch;
  size_t sizes = 0;
  bool transposed[2] = {};
  for (const Segment& segment : call.weight.segments()) {
    if (segment.group_size == 0) {
      const bool bf16 = segment.format == WeightFormat::kBF16;
      if (!transposed[bf16 ? 1 : 0])
        bf16 ? transpose_bf16_rows(pool, call, x) : transpose_rows(pool, call, x);
      transposed[bf16 ? 1 : 0] = true;
      continue;
    }
    const auto known = std::find_if(
        scratch.quantized.begin(), scratch.quantized.begin() + static_cast<std::ptrdiff_t>(sizes),
        [&](const auto& q) { return q.group_size == segment.group_size; });
    if (known != scratch.quantized.begin() + static_cast<std::ptrdiff_t>(sizes)) continue;
    QUERN_CHECK(sizes < scratch.quantized.size());
    LinearScratch::Quantized& to = scratch.quantized[sizes++];
    to.group_size = segment.group_size;
    quantize_rows(pool, call, to, x);
  }
}

// Panels [begin, end) of a segment, which meet one tile of rows of activations after another.
struct PanelChunk {
  const Segment& segment;
  int64_t begin;
  int64_t end;
};

// What a kernel brings nearer while it works, as in GroupedTile.
struct Ahead {
  const uint8_t* at;
  int64_t stride;
};

// For panel p and a tile of rows. The first two tiles share in bringing the chunk that follows: a
// core has too few requests for memory in flight to bring it during one.
Ahead ahead_of(const Call& call, const PanelChunk& chunk, int64_t p, int64_t tile) {
  const auto panel = [&](int64_t i) {
    return reinterpret_cast<const uint8_t*>(chunk.segment.panel(i));
  };
  const int64_t panels = chunk.end - chunk.begin;
  const bool shares = call.way == Way::kTogether && call.layout.tiles > 1 && tile < 2;
  if (!shares || chunk.end + panels > chunk.segment.panels()) return {panel(p), 0};
  const auto bytes = static_cast<int64_t>(chunk.segment.panel_bytes());
  return {panel(chunk.end) + (panels * tile + p - chunk.begin) * bytes / 2, 32};
}

// How the kernels of a grouped segment take the rows of activations: blocks of as many rows, one
// after another.
struct RowBlocks {
  const GroupedKernel* kernels;  // [rows - first]
  int64_t first;
  int64_t rows;
  bool padded;  // there are so many in the last block too

  int64_t count(const Call& call) const { return ceil_div(call.tokens, rows); }

  // Rows of a block that exist.
  int64_t valid(const Call& call, int64_t block) const {
    return std::min(rows, call.tokens - block * rows);
  }

  // Rows that its kernel takes.
  int64_t height(const Call& call, int64_t block) const {
    return padded ? rows : valid(call, block);
  }
};

RowBlocks row_blocks(const Call& call, const Segment& segment) {
  const int format = static_cast<int>(segment.format) - static_cast<int>(WeightFormat::kInt8);
  const auto offsets = static_cast<int>(segment.offsets);
  const int unit = segment.group_size % 32 == 0 ? 1 : 0;
  if (call.way == Way::kTogether) {
    const int wide = segment.group_size % 64 == 0 ? 2 : unit;
    return {call.ops().together[format][offsets][wide], kMinTogether, call.layout.tokens, true};
  }
  return {call.ops().grouped[format][offsets][unit], 1,
          block_size(call.tokens, call.ops().max_grouped_columns), false};
}

// Panel p of the chunk times one block of rows of activations, into y.
void run_grouped(const Call& call,
                 const PanelChunk& chunk,
                 const RowBlocks& blocks,
                 int64_t p,
                 int64_t block,
                 float* y,
                 int64_t y_stride) {
  const Segment& segment = chunk.segment;
  const LinearScratch::Quantized& x = call.quantized(segment.group_size);
  const Ahead ahead = ahead_of(call, chunk, p, block);
  const int64_t row = block * blocks.rows;
  blocks.kernels[blocks.height(call, block) - blocks.first]({
      .codes = reinterpret_cast<const uint8_t*>(segment.panel(p)),
      .scales = segment.panel_scales(p),
      .groups = segment.groups,
      .group_size = segment.group_size,
      .scale_unit = segment.scale_unit,
      .minimum_unit = segment.minimum_unit,
      .zero = segment.zero,
      .x = x.codes.as<int8_t>() + (blocks.padded ? block : row) * call.layout.stride,
      .x_stride = call.layout.stride,
      .x_groups = x.groups.as<ActivationGroup>() + row * segment.groups,
      .group_stride = segment.groups,
      .bias = call.weight.bias(segment, p),
      .y = y,
      .y_stride = y_stride,
      .ahead = ahead.at,
      .ahead_stride = ahead.stride,
  });
}

void multiply_grouped(const Call& call, const PanelChunk& chunk) {
  const Segment& segment = chunk.segment;
  const RowBlocks blocks = row_blocks(call, segment);
  for (int64_t block = 0; block < blocks.count(call); ++block) {
    for (int64_t p = chunk.begin; p < chunk.end; ++p) {
      OutputTile tile(call.out, segment.row_begin + p * kPanelRows, block * blocks.rows,
                      rows_from(segment, p, 1), blocks.valid(call, block), kPanelRows,
                      blocks.height(call, block));
      run_grouped(call, chunk, blocks, p, block, tile.data(), tile.stride());
      tile.finish();
    }
  }
}

// The same of both halves of a gated layer: out = silu(gate) * up.
void multiply_gated(const Call& call, int64_t begin, int64_t end) {
  const auto segments = call.weight.segments();
  const PanelChunk chunks[] = {{segments[0], begin, end}, {segments[1], begin, end}};
  const RowBlocks blocks[] = {row_blocks(call, segments[0]), row_blocks(call, segments[1])};
  constexpr int64_t kStride = 2 * kPanelRows;
  alignas(64) float both[kMaxTogether * kStride];
  for (int64_t block = 0; block < blocks[0].count(call); ++block) {
    float* out = call.out.f32_row(block * blocks[0].rows);
    for (int64_t p = begin; p < end; ++p) {
      for (int half = 0; half < 2; ++half)
        run_grouped(call, chunks[half], blocks[half], p, block, both + half * kPanelRows, kStride);
      store_gated(call, out + p * kPanelRows,
                  {.gate = both,
                   .up = both + kPanelRows,
                   .stride = kStride,
                   .tokens = blocks[0].valid(call, block),
                   .rows = rows_from(segments[0], p, 1)});
    }
  }
}

// The widest kernel for `count` rows of activations and at most `panels` panels, as log2 of panels.
int dense_choice(const DenseOps& ops, WeightFormat format, int64_t count, int64_t panels) {
  for (int choice = kDensePanelChoices - 1; choice > 0; --choice) {
    if ((int64_t{1} << choice) > panels) continue;
    if (ops.kernels[static_cast<int>(format)][choice][count - 1] != nullptr) return choice;
  }
  return 0;
}

// Panels [panel, panel + 2^choice) times all rows, one slice of the depth after another so that
// the weights stay in the second-level cache; the sums go on exactly where they stopped.
void multiply_dense_panels(const Call& call, const Segment& segment, int64_t panel, int choice) {
  const bool bf16 = segment.format == WeightFormat::kBF16;
  const int64_t columns = bf16 ? even(segment.columns) : segment.columns;
  const std::byte* x = bf16 ? call.scratch.bf16.data() : call.scratch.columns.data();
  const int64_t x_bytes = bf16 && call.dense().pairs ? 2 : 4;
  const int64_t panels = int64_t{1} << choice;
  const int64_t width = panels * kPanelRows;
  const int64_t number_bytes = segment.format == WeightFormat::kF32 ? 4 : 2;
  const int64_t block = block_size(call.tokens, call.dense().max_columns);
  const int64_t depth = call.tokens > block ? kDenseDepth : std::max<int64_t>(columns, 1);
  for (int64_t k = 0; k < columns || k == 0; k += depth) {
    const bool last = k + depth >= columns;
    for (int64_t t = 0; t < call.tokens; t += block) {
      const int64_t count = std::min(block, call.tokens - t);
      OutputTile tile(call.out, segment.row_begin + panel * kPanelRows, t,
                      rows_from(segment, panel, panels), count, width, count);
      if (k > 0) tile.resume();
      call.dense().kernels[static_cast<int>(segment.format)][choice][count - 1]({
          .weights = segment.panel(panel) + k * kPanelRows * number_bytes,
          .panel_bytes = static_cast<int64_t>(segment.panel_bytes()),
          .depth = std::min(depth, columns - k),
          .x = x + (t * columns + k * count) * x_bytes,
          .bias = last ? call.weight.bias(segment, panel) : nullptr,
          .y = tile.data(),
          .y_stride = tile.stride(),
          .resume = k > 0 ? 1 : 0,
      });
      tile.finish();
    }
  }
}

}  // namespace

void multiply_dense(const Call& call, const Segment& segment, int64_t begin, int64_t end) {
  const int64_t block = block_size(call.tokens, call.dense().max_columns);
  while (begin < end) {
    const int choice = dense_choice(call.dense(), segment.format, block, end - begin);
    multiply_dense_panels(call, segment, begin, choice);
    begin += int64_t{1} << choice;
  }
}

namespace {

void multiply(const Call& call, int64_t begin, int64_t end) {
  int64_t first = 0;  // of the segment, among all panels of the layer
  for (const Segment& segment : call.weight.segments()) {
    const int64_t from = std::max(begin - first, int64_t{0});
    const int64_t to = std::min(end - first, segment.panels());
    first += segment.panels();
    if (from >= to) continue;
    if (segment.group_size == 0) {
      multiply_dense(call, segment, from, to);
    } else {
      multiply_grouped(call, {segment, from, to});
    }
  }
}

// In a gated layer a chunk has as many panels of either half.
int64_t panels_per_chunk(const Call& call, int threads) {
  const CpuWeight& weight = call.weight;
  const auto bytes = static_cast<int64_t>(weight.bytes());
  const int64_t panel = std::max<int64_t>(1, bytes / std::max<int64_t>(1, weight.panels()));
  const int64_t most = call.way == Way::kTogether ? kMaxTogetherBytes : kMaxChunkBytes;
  const int64_t target =
      std::clamp(bytes / (threads * kChunksPerThread), kMinChunkBytes, most) / (call.gated ? 2 : 1);
  const auto segments = weight.segments();
  const bool dense = std::any_of(segments.begin(), segments.end(),
                                 [](const Segment& segment) { return segment.group_size == 0; });
  const int64_t together = dense ? 4 : 1;  // dense kernels take four panels at once
  return std::max(together, target / panel / together * together);
}

void multiply_by_rows(ThreadPool& pool, const Call& call) {
  const int64_t panels = call.gated ? call.weight.segments()[0].panels() : call.weight.panels();
  pool.for_each_chunk(panels, panels_per_chunk(call, pool.size()),
                      [&](int64_t begin, int64_t end, int) {
                        call.gated ? multiply_gated(call, begin, end) : multiply(call, begin, end);
                      });
}

void multiply_all(ThreadPool& pool, const Call& call) {
  if (call.way == Way::kTiles) return multiply_by_tiles(pool, call);
  if (call.way == Way::kStrips) return multiply_by_strips(pool, call);
  multiply_by_rows(pool, call);
}

// Whether both halves of a gated layer can be multiplied side by side.
bool gates(const Call& call) {
  if (call.way == Way::kTiles) return gates_by_tiles(call.weight, call.tokens);
  if (call.way == Way::kStrips) return gates_by_strips(call.weight);
  if (call.way == Way::kRows) return false;  // their weights come faster as one stream
  const auto segments = call.weight.segments();
  return segments.size() == 2 && segments[0].rows == segments[1].rows &&
         segments[0].group_size > 0 && segments[1].group_size > 0;
}

Call call_for(ThreadPool& pool,
              const LinearKernels& kernels,
              LinearScratch& scratch,
              Tensor out,
              Tensor x,
              const CpuWeight& weight,
              bool gated) {
  QUERN_CHECK(x.row_elements() == weight.columns() && x.rows() == out.rows());
  QUERN_CHECK(out.row_elements() * (gated ? 2 : 1) == weight.rows());
  const Way way = way_for(kernels, weight, x.rows(), pool.size());
  return {.kernels = kernels,
          .scratch = scratch,
          .weight = weight,
          .out = out,
          .tokens = x.rows(),
          .way = way,
          .layout = layout_for(way, x.rows(), weight.columns()),
          .gated = gated};
}

}  // namespace

LinearKernels linear_kernels(Isa isa) {
  return {.ops = &table_for(kLinearOps, isa),
          .dense = &table_for(kDenseOps, isa),
          .tiles = tile_ops_for(isa),
          .gate = gate_kernel_for(isa)};
}

void linear(ThreadPool& pool,
            const LinearKernels& kernels,
            LinearScratch& scratch,
            Tensor out,
            Tensor x,
            const CpuWeight& weight) {
  if (x.rows() == 0) return;
  const Call call = call_for(pool, kernels, scratch, out, x, weight, false);
  prepare(pool, call, x);
  multiply_all(pool, call);
}

void gated_linear(ThreadPool& pool,
                  const LinearKernels& kernels,
                  LinearScratch& scratch,
                  Tensor out,
                  Tensor x,
                  const CpuWeight& gate_up) {
  if (x.rows() == 0) return;
  const Call call = call_for(pool, kernels, scratch, out, x, gate_up, true);
  if (gates(call)) {
    prepare(pool, call, x);
    return multiply_all(pool, call);
  }
  grow(scratch.gate_up, static_cast<size_t>(x.rows() * gate_up.rows()) * sizeof(float));
  const Tensor joined(scratch.gate_up.data(), DType::kF32, {x.rows(), gate_up.rows()});
  linear(pool, kernels, scratch, joined, x, gate_up);
  silu_multiply(pool, kernels.gate, out, joined);
}

}  // namespace quern::cpu
