// The matrix shapes that tests compare with the oracle and that the benchmark times, so that the
// two cannot drift apart.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "kernels/backend.h"
#include "tensor/weight.h"

namespace quern {

// out[tokens, rows] = x[tokens, columns] W^T.
struct LinearCase {
  std::string_view name;
  int64_t rows;
  int64_t columns;
  WeightFormat format;
  int group_size = 0;  // 0 for dense formats
  GroupOffset offset = GroupOffset::kZeroPoint;
};

// Shapes that reach every path: a single panel, rows that are no multiple of 16 or 64, one group,
// groups of 16 and of a whole row, a depth above one slice.
inline constexpr std::array kSmallCases = {
    LinearCase{"int4 g32, one panel, one group", 16, 32, WeightFormat::kInt4, 32},
    LinearCase{"int4 g16", 40, 48, WeightFormat::kInt4, 16},
    LinearCase{"int4 g32, one row", 1, 64, WeightFormat::kInt4, 32},
    LinearCase{"int4 g32 minimum", 72, 96, WeightFormat::kInt4, 32, GroupOffset::kMinimum},
    LinearCase{"int4 g64", 100, 192, WeightFormat::kInt4, 64},
    LinearCase{"int4 g64, three strips", 192, 320, WeightFormat::kInt4, 64},
    LinearCase{"int4 g128", 65, 256, WeightFormat::kInt4, 128},
    LinearCase{"int4 g128 minimum", 80, 384, WeightFormat::kInt4, 128, GroupOffset::kMinimum},
    LinearCase{"int4 whole row", 33, 576, WeightFormat::kInt4, 576},
    LinearCase{"int4 g128, two slices", 70, 6272, WeightFormat::kInt4, 128},
    LinearCase{"int8 g16", 65, 48, WeightFormat::kInt8, 16},
    LinearCase{"int8 g32", 50, 96, WeightFormat::kInt8, 32},
    LinearCase{"int8 g32 minimum", 64, 160, WeightFormat::kInt8, 32, GroupOffset::kMinimum},
    LinearCase{"int8 g16 minimum", 17, 32, WeightFormat::kInt8, 16, GroupOffset::kMinimum},
    LinearCase{"int8 g128", 129, 256, WeightFormat::kInt8, 128},
    LinearCase{"int8 whole row", 48, 1056, WeightFormat::kInt8, 1056},
    LinearCase{"int6 g16", 65, 48, WeightFormat::kInt6, 16},
    LinearCase{"int6 g32 minimum", 50, 96, WeightFormat::kInt6, 32, GroupOffset::kMinimum},
    LinearCase{"int6 g64", 129, 192, WeightFormat::kInt6, 64},
    LinearCase{"f32", 70, 37, WeightFormat::kF32},
    LinearCase{"f32, two slices", 80, 700, WeightFormat::kF32},
    LinearCase{"bf16", 130, 65, WeightFormat::kBF16},
    LinearCase{"bf16, two slices", 64, 1030, WeightFormat::kBF16},
    LinearCase{"f16", 15, 129, WeightFormat::kF16},
};

// Numbers of tokens at which kernels change.
inline constexpr std::array<int64_t, 17> kTokenCounts = {1,  2,  3,  4,  5,  6,  7,  8,  9,
                                                         12, 13, 16, 17, 31, 33, 64, 100};

// The layers of two models: SmolLM2-135M (hidden 576, MLP 1536, vocabulary 49152) and Qwen2.5-1.5B
// (hidden 1536, keys and values of 256, MLP 8960, vocabulary 151936).
inline constexpr std::array kModelCases = {
    LinearCase{"135m qkv int4 g64", 960, 576, WeightFormat::kInt4, 64},
    LinearCase{"135m o int4 g64", 576, 576, WeightFormat::kInt4, 64},
    LinearCase{"135m gate_up int4 g64", 3072, 576, WeightFormat::kInt4, 64},
    LinearCase{"135m down int4 g64", 576, 1536, WeightFormat::kInt4, 64},
    LinearCase{"135m gate_up int4 g32m", 3072, 576, WeightFormat::kInt4, 32, GroupOffset::kMinimum},
    LinearCase{"135m head int8 g32", 49152, 576, WeightFormat::kInt8, 32},
    LinearCase{"1.5b qkv int4 g128", 2048, 1536, WeightFormat::kInt4, 128},
    LinearCase{"1.5b o int4 g128", 1536, 1536, WeightFormat::kInt4, 128},
    LinearCase{"1.5b gate_up int4 g128", 17920, 1536, WeightFormat::kInt4, 128},
    LinearCase{"1.5b down int4 g128", 1536, 8960, WeightFormat::kInt4, 128},
    LinearCase{"1.5b gate_up int4 g64", 17920, 1536, WeightFormat::kInt4, 64},
    LinearCase{"1.5b down int4 g64", 1536, 8960, WeightFormat::kInt4, 64},
    LinearCase{"1.5b gate_up int4 g32m", 17920, 1536, WeightFormat::kInt4, 32,
               GroupOffset::kMinimum},
    LinearCase{"1.5b down int6 g16", 1536, 8960, WeightFormat::kInt6, 16},
    LinearCase{"1.5b head int6 g16", 151936, 1536, WeightFormat::kInt6, 16},
    LinearCase{"1.5b head int8 g128", 151936, 1536, WeightFormat::kInt8, 128},
    LinearCase{"square int4 g128", 4096, 4096, WeightFormat::kInt4, 128},
    LinearCase{"square int8 row", 4096, 4096, WeightFormat::kInt8, 4096},
    LinearCase{"square bf16", 4096, 4096, WeightFormat::kBF16},
    LinearCase{"square f32", 2048, 2048, WeightFormat::kF32},
};

}  // namespace quern
