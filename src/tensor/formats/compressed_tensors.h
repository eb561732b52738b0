// The compressed-tensors "pack-quantized" layout: codes of 4 or 8 bits packed along the inputs.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "tensor/tensor.h"
#include "tensor/weight.h"

namespace quern {

// The tensors of one linear layer, N outputs and K inputs, p = 32 / bits codes a word. Bytes lie at
// any address. Stored codes are u = q + 2^(bits-1), so a symmetric layer has the zero 2^(bits-1).
struct CompressedTensors {
  std::string_view name{};                     // of the layer, for messages
  std::span<const std::byte> weight_packed{};  // I32 [N, ceil(K / p)]
  std::span<const std::byte> weight_scale{};   // [N, groups] of scale_dtype; groups == 1: channel
  // I32 [ceil(N / p), groups]; empty when symmetric
  std::span<const std::byte> weight_zero_point{};
  DType scale_dtype = DType::kBF16;  // F16, BF16 or F32
  int64_t outputs = 0;               // N of weight_shape
  int64_t inputs = 0;                // K of weight_shape
  int64_t group_size = 0;            // -1: one group for each output
  int bits = 4;                      // 4 or 8
};

// Errors: kInvalidArgument, naming the layer, when sizes do not agree or a scale is NaN or
// infinite; kUnsupported for other widths.
Result<GroupedWeight> unpack_compressed_tensors(const CompressedTensors& tensors);

// What is written, each in the shape that CompressedTensors states; scales as raw little-endian
// bytes of `scale_dtype`.
struct CompressedTensorsPacked {
  std::vector<uint32_t> weight_packed;
  std::vector<std::byte> weight_scale;
  std::vector<uint32_t> weight_zero_point;  // empty when kSymmetric
  std::array<int64_t, 2> weight_shape{};    // I64 [2]: N, K
};

// Whether zero points are written.
enum class ZeroPoints { kSymmetric, kAsymmetric };

struct CompressedTensorsOptions {
  DType scale_dtype = DType::kBF16;  // F16, BF16 or F32
  ZeroPoints zero_points = ZeroPoints::kAsymmetric;
};

// Errors: kInvalidArgument, naming `name`, when the weight has no zero points, a scale is not a
// number of scale_dtype (the packing would not be exact), a zero does not fit, or is not 2^(bits-1)
// though kSymmetric; kUnsupported when its codes have neither 4 nor 8 bits.
Result<CompressedTensorsPacked> pack_compressed_tensors(
    const GroupedWeight& weight,
    std::string_view name,
    const CompressedTensorsOptions& options = {});

}  // namespace quern
