#include "tensor/weight.h"

#include <algorithm>
#include <cstring>

#include "base/float16.h"
#include "tensor/formats/float8.h"

namespace quern {
namespace {

void widen_dense_row(const DenseWeight& weight, int64_t row, float* out) {
  const Tensor& values = weight.values;
  const int64_t columns = values.shape[1];
  const std::byte* at = static_cast<const std::byte*>(values.data) +
                        row * values.row_stride * dtype_bytes(values.dtype);
  if (values.dtype == DType::kF32) {
    std::memcpy(out, at, static_cast<size_t>(columns) * sizeof(float));
    return;
  }
  QUERN_CHECK(values.dtype == DType::kF16 || values.dtype == DType::kBF16);
  for (int64_t i = 0; i < columns; ++i) {
    uint16_t bits = 0;
    std::memcpy(&bits, at + 2 * i, sizeof bits);
    out[i] = values.dtype == DType::kF16 ? f16_to_f32(bits) : bf16_to_f32(bits);
  }
}

void widen_float8_row(const Float8Weight& weight, int64_t row, float* out) {
  const uint8_t* codes = weight.codes + row * weight.columns;
  for (int64_t begin = 0; begin < weight.columns; begin += weight.block_columns) {
    const float scale = weight.scale(row, begin);
    const int64_t end = std::min(begin + weight.block_columns, weight.columns);
    for (int64_t i = begin; i < end; ++i) out[i] = scale * e4m3_to_f32(codes[i]);
  }
}

}  // namespace

GroupedWeight empty_bytes(int64_t rows, int64_t columns, int group_size) {
  QUERN_CHECK(group_size > 0 && columns % group_size == 0);
  GroupedWeight weight;
  weight.rows = rows;
  weight.columns = columns;
  weight.group_size = group_size;
  weight.bits = 8;
  const auto groups = static_cast<size_t>(rows * weight.groups());
  weight.codes.resize(static_cast<size_t>(rows * columns));
  weight.scales.resize(groups);
  weight.zeros.assign(groups, kByteZero);
  return weight;
}

int64_t weight_rows(const Weight& weight) {
  if (const auto* dense = std::get_if<DenseWeight>(&weight)) return dense->values.shape[0];
  if (const auto* float8 = std::get_if<Float8Weight>(&weight)) return float8->rows;
  return std::get<GroupedWeight>(weight).rows;
}

int64_t weight_columns(const Weight& weight) {
  if (const auto* dense = std::get_if<DenseWeight>(&weight)) return dense->values.shape[1];
  if (const auto* float8 = std::get_if<Float8Weight>(&weight)) return float8->columns;
  return std::get<GroupedWeight>(weight).columns;
}

void widen_row(const GroupedWeight& weight, int64_t row, float* out) {
  const uint8_t* codes = weight.codes.data() + row * weight.columns;
  for (int64_t g = 0; g < weight.groups(); ++g) {
    const auto index = static_cast<size_t>(row * weight.groups() + g);
    const float scale = weight.scales[index];
    for (int64_t i = g * weight.group_size; i < (g + 1) * weight.group_size; ++i) {
      out[i] = weight.offset == GroupOffset::kZeroPoint
                   ? scale * static_cast<float>(codes[i] - weight.zeros[index])
                   : scale * static_cast<float>(codes[i]) + weight.minima[index];
    }
  }
}

void widen_row(const Weight& weight, int64_t row, float* out) {
  if (const auto* dense = std::get_if<DenseWeight>(&weight))
    return widen_dense_row(*dense, row, out);
  if (const auto* float8 = std::get_if<Float8Weight>(&weight))
    return widen_float8_row(*float8, row, out);
  widen_row(std::get<GroupedWeight>(weight), row, out);
}

FloatMatrix widen(const Weight& weight) {
  FloatMatrix matrix(weight_rows(weight), weight_columns(weight));
  for (int64_t row = 0; row < matrix.rows(); ++row) widen_row(weight, row, matrix.row(row));
  return matrix;
}

}  // namespace quern
