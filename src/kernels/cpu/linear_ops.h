// The inner kernels of linear layers with grouped weights, one table for each instruction set. All
// tables give the same bits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/backend.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/packed.h"
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

// Where one row of activations goes: 64 columns after another, block_stride bytes apart, and the
// groups group_stride apart. The defaults are a plain row.
struct QuantizedLayout {
  int group_size = 0;
  uint8_t flip = 0;  // always 0 in tables without strips
  int64_t block_stride = 64;
  int64_t group_stride = 1;
};

// One panel of a grouped format times M rows of activations.
struct GroupedTile {
  const uint8_t* codes = nullptr;
  const std::byte* scales = nullptr;
  int64_t groups = 0;
  int group_size = 0;
  float scale_unit = 1;
  float minimum_unit = 1;
  int zero = 0;               // kOneZero
  const int8_t* x = nullptr;  // codes of the activations, [M], rows x_stride apart
  int64_t x_stride = 0;
  const ActivationGroup* x_groups = nullptr;  // [M], rows group_stride apart
  int64_t group_stride = 0;
  const float* bias = nullptr;  // [16] or nullptr
  float* y = nullptr;           // [M][16], rows y_stride apart
  int64_t y_stride = 0;
  // Together: what to bring into the second-level cache meanwhile, and how many bytes of it for
  // each 64 bytes of codes; any memory with 0.
  const uint8_t* ahead = nullptr;
  int64_t ahead_stride = 0;
};

// Many rows of activations: up to 4 panels are unpacked once into a strip, then every tile of 6
// rows passes over it. Activations are unsigned, a + 128; weights are signed, code - zero point
// where that fits a byte (Segment::centred), else code - Segment::code_base.
inline constexpr int kStripPanels = 4;
inline constexpr int kMaxStripColumns = 6;  // 4 x 6 sums + 4 weights + 1 broadcast = 29 of 32
inline constexpr int kStripWidths = 3;      // 1, 2, 4 panels

// The unpacked strip of P panels: every array has one row of P * 16 for each group.
struct Strip {
  int8_t* weights = nullptr;   // [columns / 4][P][16 rows][4]
  int32_t* offsets = nullptr;  // -128 * sum of the weights: what the activations' + 128 adds
  float* scales = nullptr;
  float* minima = nullptr;   // kMinima
  int32_t* pairs = nullptr;  // uncentred: (r, 128 r) with r = zero point - code_base
};

// Unpacks groups [group_begin, group_begin + groups) of one panel into place `panel` of `panels`.
struct UnpackPanel {
  const Segment* segment = nullptr;
  int64_t segment_panel = 0;
  int64_t group_begin = 0;
  int64_t groups = 0;
  int panel = 0;
  int panels = 0;
  Strip strip;
};

// A strip times M rows of activations.
struct StripTile {
  Strip strip;
  int64_t groups = 0;
  int group_size = 0;
  const uint8_t* x = nullptr;  // a + 128, [M], rows x_stride apart
  int64_t x_stride = 0;
  const ActivationGroup* x_groups = nullptr;  // [M], rows group_stride apart
  int64_t group_stride = 0;
  const float* bias = nullptr;  // [P * 16] or nullptr
  float* y = nullptr;           // [M][P * 16], rows y_stride apart
  int64_t y_stride = 0;
  int resume = 0;  // 1: go on from the sums in y, 0: from zero
};

inline constexpr int kGroupedFormats = 3;  // kInt8, kInt4, kInt6: WeightFormat minus kInt8
inline constexpr int kMaxGroupedColumns = 8;
inline constexpr int kMinTogether = 8;
inline constexpr int kMaxTogether = 16;

using GroupedKernel = void (*)(const GroupedTile&);
using StripKernel = void (*)(const StripTile&);

struct LinearOps {
  // One row of `columns` numbers into codes, a ^ flip (0, or 0x80: a + 128 unsigned), and
  // columns / group_size groups. group_size % 16 == 0.
  void (*quantize)(const float* x,
                   int64_t columns,
                   const QuantizedLayout& layout,
                   int8_t* codes,
                   ActivationGroup* groups);
  // [format][Offsets][group of 16, groups of a multiple of 32][M - 1]; nullptr past
  // max_grouped_columns.
  GroupedKernel grouped[kGroupedFormats][kOffsetKinds][2][kMaxGroupedColumns];
  int max_grouped_columns;
  // More rows at once, which lie as one tile: codes [columns / 64][M][64], groups [groups][M].
  // [format][Offsets][groups of 16, of a multiple of 32, of a multiple of 64][M - kMinTogether].
  GroupedKernel together[kGroupedFormats][kOffsetKinds][3][kMaxTogether - kMinTogether + 1];
  bool goes_together;  // whether there are any
  // nullptr where strips do not pay.
  void (*unpack)(const UnpackPanel& panel);
  // [centred, uncentred][zero points, minima][log2 P][M - 1]
  StripKernel strip[2][2][kStripWidths][kMaxStripColumns];
};

extern const IsaTables<LinearOps> kLinearOps;

}  // namespace quern::cpu
