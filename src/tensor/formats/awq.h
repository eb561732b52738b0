// The AWQ "gemm" checkpoint layout: 4-bit codes packed along the outputs in an interleaved order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "tensor/tensor.h"
#include "tensor/weight.h"

namespace quern {

// The three tensors of one linear layer, K inputs and N outputs, g = K / groups. Bytes lie at any
// address. w[n][k] = scale[k / g][n] * (code - zero), the zero stored as it is.
struct AwqTensors {
  std::string_view name{};               // of the layer, for messages
  std::span<const std::byte> qweight{};  // I32 [K, N / 8]
  std::span<const std::byte> qzeros{};   // I32 [K / g, N / 8]
  std::span<const std::byte> scales{};   // [K / g, N] of scales_dtype
  DType scales_dtype = DType::kF16;      // F16, BF16 or F32
  int64_t inputs = 0;                    // K
  int64_t outputs = 0;                   // N
  int64_t group_size = 0;                // g; -1 means K
};

// Errors: kInvalidArgument, naming the layer, when sizes do not agree (N % 8, K % g, byte counts),
// the type of the scales is another, or a scale is NaN or infinite.
Result<GroupedWeight> unpack_awq(const AwqTensors& tensors);

// What is written: int32 words and f16 scales, each in the shape that AwqTensors states.
struct AwqPacked {
  std::vector<uint32_t> qweight;
  std::vector<uint32_t> qzeros;
  std::vector<uint16_t> scales;
};

// Codes are below 16. Errors: kInvalidArgument, naming `name`, unless the weight has 4 bits, zero
// points up to 15, outputs in multiples of 8 and scales that are numbers of f16 (the packing would
// not be exact).
Result<AwqPacked> pack_awq(const GroupedWeight& weight, std::string_view name);

}  // namespace quern
