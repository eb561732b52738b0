#include "tensor/formats/packed_scales.h"

#include <cmath>
#include <cstring>

#include <fmt/format.h>

#include "base/checked.h"
#include "base/float16.h"
#include "tensor/formats/dense.h"

namespace quern {
namespace {

Result<Unit> require_float(DType dtype, std::string_view name) {
  if (is_dense_float(dtype)) return Unit{};
  return Error{
      ErrorCode::kInvalidArgument,
      fmt::format("{}: scales are {}; expected F16, BF16 or F32", name, dtype_name(dtype))};
}

// Stores `value` rounded to `dtype` and returns what was stored.
float store(float value, DType dtype, std::byte* at) {
  if (dtype == DType::kF32) {
    std::memcpy(at, &value, sizeof value);
    return value;
  }
  const bool half = dtype == DType::kF16;
  const uint16_t bits = half ? f32_to_f16(value) : f32_to_bf16(value);
  std::memcpy(at, &bits, sizeof bits);
  return half ? f16_to_f32(bits) : bf16_to_f32(bits);
}

}  // namespace

Result<std::vector<float>> read_scales(std::span<const std::byte> bytes,
                                       DType dtype,
                                       uint64_t count,
                                       std::string_view name) {
  QUERN_TRY(require_float(dtype, name));
  const CheckedSize need = CheckedSize(count) * static_cast<uint64_t>(dtype_bytes(dtype));
  if (need.value() != bytes.size()) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: scales have {} bytes; expected {} numbers of {}", name,
                             bytes.size(), count, dtype_name(dtype))};
  }
  const auto elements = static_cast<int64_t>(count);
  const int64_t wrong = find_nonfinite(dtype, bytes.data(), elements);
  if (wrong >= 0) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("{}: scale {} is NaN or infinite; expected a finite number", name, wrong)};
  }
  std::vector<float> scales(count);
  widen_floats(dtype, bytes.data(), elements, scales.data());
  return scales;
}

Result<std::vector<std::byte>> write_scales(std::span<const float> scales,
                                            DType dtype,
                                            std::string_view name) {
  QUERN_TRY(require_float(dtype, name));
  const auto width = static_cast<size_t>(dtype_bytes(dtype));
  std::vector<std::byte> bytes(scales.size() * width);
  for (size_t i = 0; i < scales.size(); ++i) {
    const float stored = store(scales[i], dtype, bytes.data() + i * width);
    if (!std::isfinite(stored) || stored != scales[i]) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("{}: scale {} is {}, no finite number of {}", name, i, scales[i],
                               dtype_name(dtype))};
    }
  }
  return bytes;
}

}  // namespace quern
