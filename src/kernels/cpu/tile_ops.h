// The inner kernels of linear layers on a matrix unit that multiplies tiles of int8 (AMX): blocks
// of 64 rows of activations x 64 rows of weights. The bits are those of LinearOps.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/linear_ops.h"
#include "kernels/cpu/packed.h"

namespace quern::cpu {

// A tile of activations is A, one of weights B, one of sums C of TDPBSSD:
//   C[token][16 rows] += A[token][4 k .. 4 k + 3] * B[k][4 bytes of each of 16 rows], int32.
// A has up to 16 tokens x 64 columns, B 16 x 4 columns x 16 rows, C 16 tokens x 16 rows: 1 KB each.
inline constexpr int kTileTokens = 16;
inline constexpr int kTileColumns = 64;
inline constexpr int kTileRowBytes = 64;
inline constexpr int kTileRegisters = 8;

// 4 tiles x 4 panels: in a group of 128 columns A and B are 8 KB each, the float sums 16 KB, and
// the first-level cache has 48 KB. Every byte of A and B that comes from L2 then meets 64 others.
inline constexpr int kBlockTiles = 4;
inline constexpr int kBlockPanels = 4;
inline constexpr int64_t kBlockWidth = int64_t{kBlockPanels} * kPanelRows;
inline constexpr int64_t kBlockSums =
    int64_t{kBlockTiles} * kBlockPanels * kTileTokens * kPanelRows;

// Two blocks in turns, and a step that is of no use.
inline constexpr int64_t kWorkSums = 2 * kBlockSums + int64_t{4} * kTileTokens * kPanelRows;

// What all products of a job have in common.
struct TileShape {
  int tokens = kTileTokens;  // of each tile of activations; a product takes as many cycles
  int depth = kTileColumns;  // columns of a product: 16, 32 or 64
};

// The deepest product that a group consists of.
constexpr int tile_depth(int group_size) {
  return group_size % 64 == 0 ? 64 : group_size % 32 == 0 ? 32 : 16;
}

// The operand of LDTILECFG (Intel 64 and IA-32 Architectures SDM, volume 1, chapter 18).
struct TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

static_assert(sizeof(TileConfig) == 64);

// Four products in flight hide the latency of one (52 cycles, a new one every 16): sums of 2 tiles
// x 2 panels or of 1 x 4 in registers 0 .. 3.
inline constexpr int kActivationTile = 4;  // and 5
inline constexpr int kWeightTile = 6;      // and 7

constexpr TileConfig tile_config(const TileShape& shape) {
  TileConfig config;
  for (int t = 0; t < kTileRegisters; ++t) {
    const bool weights = t >= kWeightTile;
    const bool activations = t >= kActivationTile && !weights;
    config.rows[t] = static_cast<uint8_t>(weights ? shape.depth / 4 : shape.tokens);
    config.row_bytes[t] = static_cast<uint16_t>(activations ? shape.depth : kTileRowBytes);
  }
  return config;
}

// One panel of weights, unpacked: signed bytes, code - zero point where that fits (centred), else
// code - Segment::code_base. The weights are those of the block at hand, the numbers of groups
// those of the whole job, since sums wait for them.
struct TilePanel {
  int8_t* weights = nullptr;  // [columns / 4][16 rows][4]: a tile B every `depth` columns
  float* scales = nullptr;    // [groups][16]
  float* minima = nullptr;    // [groups][16], kMinimum
  int32_t* pairs = nullptr;   // [groups][16], uncentred: (r, 128 r) with r = zero point - code_base
  // The codes that are unpacked next: as many as those of the block, fetched while it is
  // multiplied.
  const uint8_t* next = nullptr;
};

// Unpacks groups [group_begin, group_begin + groups) of one panel.
struct UnpackTiles {
  const Segment* segment = nullptr;
  int64_t segment_panel = 0;
  int64_t group_begin = 0;
  int64_t groups = 0;
  int64_t record_begin = 0;  // where the numbers of the first group go
  TilePanel to;
};

// Some groups of up to 4 panels times up to 4 tiles of activations.
struct TileBlock {
  TileShape shape;
  int group_size = 0;
  int64_t groups = 0;
  int64_t group_begin = 0;            // of the first group in the job
  bool sets_y = true;                 // the job's first group sets y, which else holds a sum so far
  const TilePanel* panels = nullptr;  // [panel_count]
  int panel_count = 0;
  int64_t next_bytes = 0;     // of each group of TilePanel::next
  int64_t next_share = 0;     // of those, so many are fetched for each tile of activations
  const int8_t* x = nullptr;  // tiles, x_stride bytes apart: [columns / 64][shape.tokens][64]
  int64_t x_stride = 0;
  int64_t x_column = 0;  // where the first group begins in x
  int tile_count = 0;
  // Of the first group: [group][shape.tokens], tiles group_stride apart.
  const ActivationGroup* x_groups = nullptr;
  int64_t group_stride = 0;
  int32_t* sums = nullptr;  // [kWorkSums], working memory
  float* y = nullptr;       // [tile_count * shape.tokens][kBlockWidth]
  // Where y will be written, rows out_stride apart: fetched meanwhile, out_rows of each tile and
  // panel in a group.
  const float* out = nullptr;
  int64_t out_stride = 0;
  int64_t out_panels = 0;  // the first of the block
  int64_t out_rows = 0;
};

// The tiles of activations and panels of weights of a step, and what all steps have in common.
struct TileForm {
  int tiles = 0;  // 0: nothing is under way
  int panels = 0;
  int tokens = 0;  // of each tile
  int64_t group_stride = 0;
};

// The sums of one step on their way from the tile registers to y.
struct TileSums {
  bool complete = false;  // the whole group is in them
  bool set_y = false;
  int64_t group = 0;  // in the job
  const TilePanel* panels = nullptr;
  int32_t* sums = nullptr;                       // [tiles][panels][16 tokens][16 rows]
  const ActivationGroup* activations = nullptr;  // of the group
  float* y = nullptr;
};

// What a job has under way between its blocks.
struct TilePipeline {
  TileForm form;
  TileSums multiplied;  // lie in the registers still
  TileSums stored;      // become floats next
};

// The finished part of a block, into the output.
struct TileOutput {
  const float* y = nullptr;  // [tokens][kBlockWidth]
  int64_t tokens = 0;
  int64_t rows = 0;             // of weights, at most kBlockWidth
  const float* bias = nullptr;  // [rows rounded up to 16] or nullptr
  float* out = nullptr;         // rows out_stride apart
  int64_t out_stride = 0;
};

// multiply() leaves work under way, which drain() ends. Between the two nobody else touches the
// registers, y, sums, and the panels' numbers of groups; weights may be unpacked anew.
struct TileKernels {
  void (*multiply)(const TileBlock&, TilePipeline&);
  void (*drain)(TilePipeline&);
};

struct TileOps {
  // Readies the tile registers of this thread; multiply needs it, release() gives them up.
  void (*configure)(const TileShape& shape);
  void (*release)();
  void (*unpack)(const UnpackTiles& panel);
  // [centred, uncentred][offset]
  TileKernels kernels[2][2];
  void (*write)(const TileOutput& output);
};

// nullptr where an instruction set has no tiles.
const TileOps* tile_ops_for(Isa isa);

}  // namespace quern::cpu
