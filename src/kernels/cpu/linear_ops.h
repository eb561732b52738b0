// The inner kernels of linear layers, one table for each instruction set. All tables give the same
// bits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/backend.h"
#include "kernels/cpu/isa.h"
#include "tensor/weight.h"

namespace quern::cpu {

// One group of one row of activations.
struct ActivationGroup {
  float step = 0;            // d
  float sum_times_step = 0;  // float(A) * d
  // -A as two signed halves: -A = low + 128 * high, low in [0, 128), high in the upper 16 bits. Met
  // with zero points as (zero, 128 * zero), one 16-bit dot product gives -zero * A.
  int32_t negative_sum = 0;
  int32_t sum = 0;  // A
};

// One panel of a grouped format times M rows of activations.
struct GroupedTile {
  const uint8_t* codes = nullptr;
  const std::byte* scales = nullptr;
  int64_t groups = 0;
  int group_size = 0;
  float scale_unit = 1;
  float minimum_unit = 1;
  const int8_t* x = nullptr;  // codes of the activations, [M], rows x_stride apart
  int64_t x_stride = 0;
  const ActivationGroup* x_groups = nullptr;  // [M], rows group_stride apart
  int64_t group_stride = 0;
  const float* bias = nullptr;  // [16] or nullptr
  float* y = nullptr;           // [M][16], rows y_stride apart
  int64_t y_stride = 0;
};

// P panels of a dense format times M rows of activations over `depth` columns.
struct DenseTile {
  const std::byte* weights = nullptr;  // panels panel_bytes apart
  int64_t panel_bytes = 0;
  int64_t depth = 0;
  const float* x = nullptr;     // [depth][M]
  const float* bias = nullptr;  // [P * 16] or nullptr
  float* y = nullptr;           // [M][P * 16], rows y_stride apart
  int64_t y_stride = 0;
  int resume = 0;  // 1: go on from the sums in y, 0: from zero
};

inline constexpr int kMaxGroupedColumns = 8;
inline constexpr int kMaxDenseColumns = 6;    // 4 panels x 6 = 24 of 32 registers
inline constexpr int kDensePanelChoices = 3;  // 1, 2, 4 panels

using GroupedKernel = void (*)(const GroupedTile&);
using DenseKernel = void (*)(const DenseTile&);

struct LinearOps {
  // One row: codes[columns], groups[columns / group_size]. group_size % 16 == 0.
  void (*quantize)(
      const float* x, int64_t columns, int group_size, int8_t* codes, ActivationGroup* groups);
  // [kInt8, kInt4][offset][group of 16, groups of a multiple of 32][M - 1]; nullptr past
  // max_grouped_columns.
  GroupedKernel grouped[2][2][2][kMaxGroupedColumns];
  int max_grouped_columns;
  // [format][log2 P][M - 1]; nullptr where the registers do not suffice.
  DenseKernel dense[3][kDensePanelChoices][kMaxDenseColumns];
  int max_dense_columns;
};

extern const IsaTables<LinearOps> kLinearOps;

}  // namespace quern::cpu
