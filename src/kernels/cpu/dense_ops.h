// The inner kernels of products with dense weights, one table for each instruction set. All tables
// give the same bits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/backend.h"
#include "kernels/cpu/isa.h"

namespace quern::cpu {

// P panels of a dense format times M rows of activations over `depth` columns.
struct DenseTile {
  const std::byte* weights = nullptr;  // panels panel_bytes apart
  int64_t panel_bytes = 0;
  int64_t depth = 0;  // even for kBF16
  // [depth][M] floats, which are BF16 numbers where the weights are; with DenseOps::pairs and
  // weights of kBF16 [depth / 2][M] pairs of BF16.
  const std::byte* x = nullptr;
  const float* bias = nullptr;  // [P * 16] or nullptr
  float* y = nullptr;           // [M][P * 16], rows y_stride apart
  int64_t y_stride = 0;
  int resume = 0;  // 1: go on from the sums in y, 0: from zero
};

inline constexpr int kMaxDenseColumns = 6;    // 4 panels x 6 = 24 of 32 registers
inline constexpr int kDensePanelChoices = 3;  // 1, 2, 4 panels

using DenseKernel = void (*)(const DenseTile&);

struct DenseOps {
  // [format][log2 P][M - 1]; nullptr where the registers do not suffice.
  DenseKernel kernels[3][kDensePanelChoices][kMaxDenseColumns];
  int max_columns;
  bool pairs;  // pairs of BF16 are multiplied by one instruction
};

extern const IsaTables<DenseOps> kDenseOps;

}  // namespace quern::cpu
