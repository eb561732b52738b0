// What attention.cc asks of each instruction set, and how a block of the cache lies in memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/backend.h"
#include "kernels/cpu/isa.h"
#include "kernels/kv_format.h"

namespace quern::cpu {

inline constexpr int kMaxHeadDim = 512;
inline constexpr int kMaxTileRows = 6;
inline constexpr int kMaxKeyGroups = kMaxHeadDim / kKeyGroup;

// One head of one block, every part a multiple of 64 bytes; `padded` is head_dim rounded up to 16.
//   int8:      keys   [padded / 4][kKvBlockTokens][4]  u8, the code + 128
//              values [kKvBlockTokens / 4][padded][4]  s8: both feed products of four bytes a lane
//              scales of keys [groups][kKvBlockTokens] f32, of values [kKvBlockTokens] f32
//   bf16, f32: keys   [padded][kKvBlockTokens], values [kKvBlockTokens][padded]
struct KvShape {
  KvDType dtype = KvDType::kInt8;
  int dims = 0;
  int padded = 0;
  int groups = 0;
  size_t values_offset = 0;
  size_t key_scales_offset = 0;
  size_t value_scales_offset = 0;
  size_t head_bytes = 0;
};

KvShape kv_shape(const KvLayout& layout);

// The query rows of one tile: heads of one kv head at neighbouring positions, in ascending order of
// position. Scores are in units of log2, so that probabilities are powers of two.
struct TileQueries {
  int rows = 0;
  int64_t first[kMaxTileRows];  // first and last visible position
  int64_t last[kMaxTileRows];
  float scale = 0;                                       // params.scale * log2(e)
  alignas(64) float values[kMaxTileRows * kMaxHeadDim];  // [rows][padded], when not int8
  alignas(64) int8_t codes[kMaxTileRows * kMaxHeadDim];  // [rows][padded], when int8
  float scales[kMaxTileRows * kMaxKeyGroups];            // [rows][groups], times `scale`
  int32_t biases[kMaxTileRows * kMaxKeyGroups];          // [rows][groups], -128 * sum of codes
};

// The online softmax of the rows of a tile: largest score, sum of probabilities relative to it, and
// sum of probability times value.
struct TileState {
  alignas(64) float largest[16];                       // [rows]
  alignas(64) float total[16];                         // [rows], by end_tile()
  alignas(64) float lane_totals[kMaxTileRows * 16];    // before the lanes are added up
  alignas(64) float sums[kMaxTileRows * kMaxHeadDim];  // [rows][padded]
};

// One head of one block of a sequence.
struct Block {
  const std::byte* head = nullptr;
  int64_t position = 0;             // of its first token
  const std::byte* next = nullptr;  // as many bytes are read from there next; nullptr: unknown
};

struct Quantized {
  float scale = 0;
  int32_t sum = 0;  // of the codes
};

struct AttentionKernels {
  int tile_rows;

  // Sets row `row` of the tile from q[dims].
  void (*set_query)(TileQueries& tile, const KvShape& shape, int row, const float* q);

  // The online softmax over blocks: from nothing, with one block more, and the totals.
  void (*begin_tile)(TileState& state, int rows, const KvShape& shape);
  void (*attend)(TileState& state,
                 const TileQueries& tile,
                 const KvShape& shape,
                 const Block& block);
  void (*end_tile)(TileState& state, int rows);

  // Merges row `from_row` of `from`, the next segment, into row `into_row`.
  void (*merge)(TileState& into, int into_row, const TileState& from, int from_row, int padded);

  // out[dims] = sums / total of a row.
  void (*finish)(float* out, const TileState& state, int row, const KvShape& shape);

  // Quantises one group of kv_format.h. `codes` has room for count rounded up to 16.
  Quantized (*quantize)(int8_t* codes, const float* x, int count);
};

extern const AttentionKernels kAttentionScalar, kAttentionNeon, kAttentionI8mm, kAttentionAvx2,
    kAttentionAvxVnni, kAttentionAvx512, kAttentionAvx512Vnni;

}  // namespace quern::cpu
