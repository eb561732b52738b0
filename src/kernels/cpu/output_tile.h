// Where the kernels of linear layers write.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/linear_ops.h"
#include "kernels/cpu/packed.h"
#include "tensor/tensor.h"

namespace quern::cpu {

// Where a kernel writes: the output itself or, for the last panel of a segment whose rows are no
// multiple of 16 and the last tile of tokens, a tile whose valid part is copied.
class OutputTile {
 public:
  // `rows` and `tokens` of the kernel's `width` and `height` exist.
  OutputTile(Tensor out,
             int64_t row,
             int64_t token,
             int64_t rows,
             int64_t tokens,
             int64_t width,
             int64_t height)
      : to_(out.f32_row(token) + row),
        stride_(out.row_stride),
        rows_(rows),
        tokens_(tokens),
        direct_(rows == width && tokens == height) {}

  float* data() { return direct_ ? to_ : tile_; }

  int64_t stride() const { return direct_ ? stride_ : kMaxWidth; }

  // Brings the sums so far into the tile.
  void resume() {
    if (direct_) return;
    for (int64_t t = 0; t < tokens_; ++t)
      std::copy_n(to_ + t * stride_, rows_, tile_ + t * kMaxWidth);
  }

  void finish() const {
    if (direct_) return;
    for (int64_t t = 0; t < tokens_; ++t)
      std::copy_n(tile_ + t * kMaxWidth, rows_, to_ + t * stride_);
  }

 private:
  static constexpr int64_t kMaxWidth = 4 * kPanelRows;

  float* to_;
  int64_t stride_;
  int64_t rows_;
  int64_t tokens_;
  bool direct_;
  alignas(64) float tile_[kMaxTogether * kMaxWidth];
};

// Valid rows of `count` panels from `panel`.
inline int64_t rows_from(const Segment& segment, int64_t panel, int64_t count) {
  return std::min((panel + count) * kPanelRows, segment.rows) - panel * kPanelRows;
}

}  // namespace quern::cpu
