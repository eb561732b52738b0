// One weight matrix as a checkpoint states it, before a backend packs it for its kernels.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "tensor/buffer.h"
#include "tensor/tensor.h"

namespace quern {

// Rows are output channels, columns input channels, in every weight of Quern.

// Dense numbers: kF32, kF16 or kBF16. A view into the checkpoint, which outlives it, or into
// `owned`.
struct DenseWeight {
  Tensor values;  // [rows, columns]
  Buffer owned;
};

// How a group of codes is shifted.
enum class GroupOffset : uint8_t {
  kZeroPoint,  // w = scale * (code - zero), zero an integer (AWQ, compressed-tensors, Q4_0, Q8_0)
  kMinimum,    // w = scale * code + minimum, minimum a real number (Q4_1, Q4_K, Q5_K)
};

// Integer codes with one scale and one offset for each group of `group_size` columns of a row.
struct GroupedWeight {
  int64_t rows = 0;
  int64_t columns = 0;
  int group_size = 0;  // divides columns
  int bits = 4;        // codes lie in [0, 2^bits); 4, or 5 to 8 which kernels treat as 8
  GroupOffset offset = GroupOffset::kZeroPoint;
  std::vector<uint8_t> codes;  // [rows, columns], one a byte
  std::vector<float> scales;   // [rows, columns / group_size]
  std::vector<uint8_t> zeros;  // [rows, columns / group_size] when kZeroPoint
  std::vector<float> minima;   // [rows, columns / group_size] when kMinimum

  int64_t groups() const { return columns / group_size; }
};

inline constexpr int kByteZero = 128;

// Codes of 8 bits around kByteZero, to be filled together with the scales.
GroupedWeight empty_bytes(int64_t rows, int64_t columns, int group_size);

// Numbers of one byte (FP8 E4M3) with one scale for each block of rows and columns:
// w = scale * number. The scales of the last blocks hold for what is left.
struct Float8Weight {
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t block_rows = 0;
  int64_t block_columns = 0;
  const uint8_t* codes = nullptr;  // [rows, columns]: a view into the checkpoint, which outlives it
  std::vector<float> scales;       // [ceil(rows / block_rows), ceil(columns / block_columns)]

  float scale(int64_t row, int64_t column) const {
    const int64_t across = (columns + block_columns - 1) / block_columns;
    return scales[static_cast<size_t>(row / block_rows * across + column / block_columns)];
  }
};

using Weight = std::variant<DenseWeight, GroupedWeight, Float8Weight>;

int64_t weight_rows(const Weight& weight);
int64_t weight_columns(const Weight& weight);

// Row `row` as float32 into out[columns], exactly as the format defines it.
void widen_row(const Weight& weight, int64_t row, float* out);
void widen_row(const GroupedWeight& weight,
               int64_t row,
               float* out);  // without a copy into a Weight

// The whole matrix as float32 [rows, columns].
FloatMatrix widen(const Weight& weight);

}  // namespace quern
