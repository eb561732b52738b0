// Weights and activations with random numbers for tests and benchmarks of kernels.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/float16.h"
#include "base/random.h"
#include "kernels/cases.h"
#include "tensor/buffer.h"
#include "tensor/weight.h"

namespace quern {

// Uniform in [-1, 1).
inline float random_signed(uint64_t seed, uint64_t position) {
  return static_cast<float>(2 * random_uniform(seed, 1, position) - 1);
}

inline FloatMatrix random_matrix(int64_t rows, int64_t columns, uint64_t seed) {
  FloatMatrix matrix(rows, columns);
  for (int64_t i = 0; i < rows * columns; ++i)
    matrix.data()[i] = random_signed(seed, static_cast<uint64_t>(i));
  return matrix;
}

inline DenseWeight random_dense(int64_t rows, int64_t columns, DType dtype, uint64_t seed) {
  DenseWeight weight;
  weight.owned = Buffer(static_cast<size_t>(rows * columns * dtype_bytes(dtype)));
  weight.values = Tensor(weight.owned.data(), dtype, {rows, columns});
  for (int64_t i = 0; i < rows * columns; ++i) {
    const float value = random_signed(seed, static_cast<uint64_t>(i));
    if (dtype == DType::kF32) {
      weight.owned.as<float>()[i] = value;
    } else {
      weight.owned.as<uint16_t>()[i] =
          dtype == DType::kBF16 ? f32_to_bf16(value) : f32_to_f16(value);
    }
  }
  return weight;
}

// Scales are f16 numbers; zero points spread over the range of the codes.
inline GroupedWeight random_grouped(const LinearCase& shape, int bits, uint64_t seed) {
  GroupedWeight weight;
  weight.rows = shape.rows;
  weight.columns = shape.columns;
  weight.group_size = shape.group_size;
  weight.bits = bits;
  weight.offset = shape.offset;
  const auto codes = static_cast<size_t>(shape.rows * shape.columns);
  const auto groups = static_cast<size_t>(shape.rows * weight.groups());
  const uint64_t mask = (uint64_t{1} << bits) - 1;
  weight.codes.resize(codes);
  for (size_t i = 0; i < codes; ++i)
    weight.codes[i] = static_cast<uint8_t>(random_bits(seed, 2, i) & mask);
  weight.scales.resize(groups);
  for (size_t i = 0; i < groups; ++i) {
    const float scale = 0.01f + 0.005f * random_signed(seed + 1, i);
    weight.scales[i] = f16_to_f32(f32_to_f16(scale));
  }
  if (shape.offset == GroupOffset::kZeroPoint) {
    weight.zeros.resize(groups);
    for (size_t i = 0; i < groups; ++i)
      weight.zeros[i] = static_cast<uint8_t>(random_bits(seed, 3, i) & mask);
    return weight;
  }
  weight.minima.resize(groups);
  for (size_t i = 0; i < groups; ++i)
    weight.minima[i] = f16_to_f32(f32_to_f16(random_signed(seed + 2, i)));
  return weight;
}

// `bits` of the codes when the format is kInt8: 8 or 7.
inline Weight random_weight(const LinearCase& shape, uint64_t seed, int int8_bits = 8) {
  switch (shape.format) {
    case WeightFormat::kF32:
      return random_dense(shape.rows, shape.columns, DType::kF32, seed);
    case WeightFormat::kBF16:
      return random_dense(shape.rows, shape.columns, DType::kBF16, seed);
    case WeightFormat::kF16:
      return random_dense(shape.rows, shape.columns, DType::kF16, seed);
    case WeightFormat::kInt8:
      return random_grouped(shape, int8_bits, seed);
    case WeightFormat::kInt4:
      return random_grouped(shape, 4, seed);
    case WeightFormat::kInt6:
      return random_grouped(shape, 6, seed);
  }
  return {};
}

// Rows [begin, begin + count).
inline FloatMatrix some_rows(const FloatMatrix& x, int64_t begin, int64_t count) {
  FloatMatrix part(count, x.columns());
  std::copy_n(x.row(begin), count * x.columns(), part.data());
  return part;
}

// Position of the first number of `a`, the first rows of `b`, whose bits differ (any NaN equals any
// other), or -1.
inline int64_t first_difference(const FloatMatrix& a, const FloatMatrix& b) {
  for (int64_t i = 0; i < a.rows() * a.columns(); ++i) {
    if (std::isnan(a.data()[i]) && std::isnan(b.data()[i])) continue;
    if (std::memcmp(a.data() + i, b.data() + i, sizeof(float)) != 0) return i;
  }
  return -1;
}

}  // namespace quern
