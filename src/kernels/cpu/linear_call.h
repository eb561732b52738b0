// What the parts of one call of linear() share.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/dense_ops.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/linear_ops.h"
#include "kernels/cpu/packed.h"
#include "tensor/tensor.h"

namespace quern::cpu {

// Where the quantised rows of activations lie. `tokens` 1: row after row, `stride` bytes apart.
// More: in tiles of so many rows, `stride` bytes apart, each [columns / 64][tokens][64]; the groups
// of a tile are [group][tokens].
struct ActivationLayout {
  int64_t tokens = 1;
  int64_t tiles = 0;  // or rows
  int64_t stride = 0;
  uint8_t flip = 0;
};

// How the rows of activations meet the weights.
enum class Way : uint8_t {
  kRows,      // a few at a time
  kTogether,  // in tiles of 8 to 16, LinearOps::together
  kStrips,    // all of them pass over strips of unpacked weights, LinearOps::strip
  kTiles,     // in tiles for a matrix unit
};

struct Call {
  LinearKernels kernels;
  LinearScratch& scratch;
  const CpuWeight& weight;
  Tensor out;
  int64_t tokens;
  Way way;
  ActivationLayout layout;
  bool gated = false;  // out is silu(first segment) * second segment

  const LinearOps& ops() const { return *kernels.ops; }

  const DenseOps& dense() const { return *kernels.dense; }

  const LinearScratch::Quantized& quantized(int group_size) const {
    return *std::find_if(scratch.quantized.begin(), scratch.quantized.end(),
                         [&](const auto& q) { return q.group_size == group_size; });
  }
};

// Whether kernels that take panels of both halves of a gated layer side by side can.
inline bool halves_alike(const CpuWeight& gate_up) {
  const auto segments = gate_up.segments();
  if (segments.size() != 2) return false;
  const Segment& a = segments[0];
  const Segment& b = segments[1];
  return a.group_size > 0 && a.rows == b.rows && a.format == b.format &&
         a.group_size == b.group_size && a.centred == b.centred &&
         (a.offsets == Offsets::kMinima) == (b.offsets == Offsets::kMinima) &&
         gate_up.bias(a, 0) == nullptr;
}

// Both halves of some rows of a gated layer's result, side by side.
struct GatedTile {
  const float* gate;
  const float* up;
  int64_t stride;
  int64_t tokens;
  int64_t rows;
};

// out = silu(gate) * up, out being in call.out.
inline void store_gated(const Call& call, float* out, const GatedTile& tile) {
  for (int64_t t = 0; t < tile.tokens; ++t) {
    call.kernels.gate(out + t * call.out.row_stride, tile.gate + t * tile.stride,
                      tile.up + t * tile.stride, tile.rows);
  }
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Cuts `count` things into the fewest blocks of at most `limit`, as equal as can be.
inline int64_t block_size(int64_t count, int64_t limit) {
  return ceil_div(count, ceil_div(count, limit));
}

inline void grow(Buffer& buffer, size_t bytes) {
  if (buffer.bytes() < bytes) buffer = Buffer(bytes);
}

// Panels [begin, end) of a dense segment times all rows.
void multiply_dense(const Call& call, const Segment& segment, int64_t begin, int64_t end);

}  // namespace quern::cpu
