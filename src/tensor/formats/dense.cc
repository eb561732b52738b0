#include "tensor/formats/dense.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include <fmt/format.h>

#include "base/float16.h"

namespace quern {
namespace {

constexpr int64_t kScanChunk = 4096;  // elements between two looks at the flag: the scan vectorises

// Whether any of `count` numbers has all bits of `exponent_mask` set.
template <typename Bits>
bool any_nonfinite(const std::byte* data, int64_t count, Bits exponent_mask) {
  unsigned found = 0;
  for (int64_t i = 0; i < count; ++i) {
    Bits bits = 0;
    std::memcpy(&bits, data + i * static_cast<int64_t>(sizeof bits), sizeof bits);
    found |= static_cast<unsigned>((bits & exponent_mask) == exponent_mask);
  }
  return found != 0;
}

bool any_nonfinite(DType dtype, const std::byte* data, int64_t count) {
  if (dtype == DType::kF32) return any_nonfinite<uint32_t>(data, count, 0x7f800000u);
  return any_nonfinite<uint16_t>(data, count, dtype == DType::kF16 ? 0x7c00u : 0x7f80u);
}

template <typename Convert>
void widen_16(const std::byte* data, int64_t count, float* out, Convert convert) {
  for (int64_t i = 0; i < count; ++i) {
    uint16_t bits = 0;
    std::memcpy(&bits, data + 2 * i, sizeof bits);
    out[i] = convert(bits);
  }
}

}  // namespace

bool is_dense_float(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
}

void widen_floats(DType dtype, const std::byte* data, int64_t count, float* out) {
  QUERN_CHECK(is_dense_float(dtype));
  if (count == 0) return;
  if (dtype == DType::kF32) {
    std::memcpy(out, data, static_cast<size_t>(count) * sizeof(float));
  } else if (dtype == DType::kF16) {
    widen_16(data, count, out, f16_to_f32);
  } else {
    widen_16(data, count, out, bf16_to_f32);
  }
}

int64_t find_nonfinite(DType dtype, const std::byte* data, int64_t count) {
  QUERN_CHECK(is_dense_float(dtype));
  const int64_t width = dtype_bytes(dtype);
  int64_t begin = 0;
  while (begin < count &&
         !any_nonfinite(dtype, data + begin * width, std::min(kScanChunk, count - begin))) {
    begin += kScanChunk;
  }
  for (; begin < count; ++begin) {
    if (any_nonfinite(dtype, data + begin * width, 1)) return begin;
  }
  return -1;
}

Result<DenseWeight> make_dense_weight(DType dtype,
                                      std::span<const std::byte> bytes,
                                      std::array<int64_t, 2> shape,
                                      std::string_view name) {
  const auto [rows, columns] = shape;
  QUERN_CHECK(is_dense_float(dtype));
  QUERN_CHECK(static_cast<int64_t>(bytes.size()) == rows * columns * dtype_bytes(dtype));
  const int64_t wrong = find_nonfinite(dtype, bytes.data(), rows * columns);
  if (wrong >= 0) {
    float value = 0;
    widen_floats(dtype, bytes.data() + wrong * dtype_bytes(dtype), 1, &value);
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: row {}, column {} is {}; weights must be finite", name,
                             wrong / columns, wrong % columns, value)};
  }
  DenseWeight weight;
  void* data = const_cast<std::byte*>(bytes.data());
  if (std::bit_cast<uintptr_t>(data) % static_cast<size_t>(dtype_bytes(dtype)) != 0) {
    weight.owned = Buffer(bytes.size());
    std::memcpy(weight.owned.data(), bytes.data(), bytes.size());
    data = weight.owned.data();
  }
  weight.values = Tensor(data, dtype, {rows, columns});
  return weight;
}

}  // namespace quern
