// What kernels and files exchange: element types, and a view of numbers that somebody else owns.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string_view>

#include "base/check.h"

namespace quern {

enum class DType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kF64,
  kI8,
  kU8,
  kI16,
  kI32,
  kI64,
  kBool,
  kF8E4M3,
  kF8E5M2,
  kU16,
  kU32,
  kU64
};

// Bytes of one element.
constexpr int dtype_bytes(DType dtype) {
  switch (dtype) {
    case DType::kF64:
    case DType::kI64:
    case DType::kU64:
      return 8;
    case DType::kF32:
    case DType::kI32:
    case DType::kU32:
      return 4;
    case DType::kF16:
    case DType::kBF16:
    case DType::kI16:
    case DType::kU16:
      return 2;
    case DType::kI8:
    case DType::kU8:
    case DType::kBool:
    case DType::kF8E4M3:
    case DType::kF8E5M2:
      return 1;
  }
  return 0;
}

// "F32", "BF16", ...: the names of the safetensors format.
std::string_view dtype_name(DType dtype);

// A dense row-major view of up to four dimensions, whose first dimension may be strided: row i
// begins `row_stride` elements after row i - 1. Borrows the memory; copying a Tensor copies the
// view.
struct Tensor {
  static constexpr int kMaxRank = 4;

  void* data = nullptr;
  DType dtype = DType::kF32;
  int rank = 0;
  std::array<int64_t, kMaxRank> shape{};
  int64_t row_stride = 0;  // elements

  Tensor() = default;

  // A contiguous view.
  Tensor(void* data_in, DType dtype_in, std::initializer_list<int64_t> dims)
      : data(data_in), dtype(dtype_in), rank(static_cast<int>(dims.size())) {
    QUERN_CHECK(rank >= 1 && rank <= kMaxRank);
    int i = 0;
    for (const int64_t dim : dims) shape[static_cast<size_t>(i++)] = dim;
    row_stride = row_elements();
  }

  int64_t rows() const { return shape[0]; }

  int64_t row_elements() const {
    int64_t count = 1;
    for (int i = 1; i < rank; ++i) count *= shape[static_cast<size_t>(i)];
    return count;
  }

  int64_t elements() const { return rank == 0 ? 0 : rows() * row_elements(); }

  // Requires dtype == kF32.
  float* f32() const {
    QUERN_CHECK(dtype == DType::kF32);
    return static_cast<float*>(data);
  }

  float* f32_row(int64_t row) const { return f32() + row * row_stride; }

  // Rows [begin, begin + count).
  Tensor slice_rows(int64_t begin, int64_t count) const {
    QUERN_CHECK(begin >= 0 && count >= 0 && begin + count <= rows());
    Tensor t = *this;
    t.data = static_cast<std::byte*>(data) + begin * row_stride * dtype_bytes(dtype);
    t.shape[0] = count;
    return t;
  }

  // Columns [begin, begin + count) of a matrix; the row stride stays.
  Tensor slice_columns(int64_t begin, int64_t count) const {
    QUERN_CHECK(rank == 2 && begin >= 0 && count >= 0 && begin + count <= shape[1]);
    Tensor t = *this;
    t.data = static_cast<std::byte*>(data) + begin * dtype_bytes(dtype);
    t.shape[1] = count;
    return t;
  }
};

}  // namespace quern
