// The storage formats of GGUF tensors: how bits lie in a block, and what numbers they mean.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "tensor/weight.h"

namespace quern {

// Where the parts of consecutive blocks go when they are split into a GroupedWeight.
struct GroupParts {
  uint8_t* codes = nullptr;  // [blocks * block_elements]
  float* scales = nullptr;   // [blocks * block_elements / group_size]
  float* minima = nullptr;   // the same count; nullptr when the format has a zero point
};

// One format. Blocks hold `block_elements` consecutive elements of one row; all integers are
// little-endian; functions take blocks at any address and never fail.
struct StorageFormat {
  std::string_view name;
  uint32_t ggml_type = 0;
  int block_elements = 1;
  int block_bytes = 0;

  // Widens `blocks` blocks to float32 in out[blocks * block_elements].
  void (*decode)(const std::byte* data, int64_t blocks, float* out) = nullptr;

  // Splits `blocks` blocks into codes, scales and minima, exactly: widening them gives the same
  // floats as decode. nullptr for dense formats, whose group_size is 0.
  void (*split)(const std::byte* data, int64_t blocks, const GroupParts& parts) = nullptr;
  int group_size = 0;
  int bits = 0;
  GroupOffset offset = GroupOffset::kZeroPoint;
  uint8_t zero = 0;  // of every group when kZeroPoint

  // Rounds values[blocks * block_elements], all finite, to the nearest codes; nullptr where Quern
  // never encodes.
  void (*encode)(const float* values, int64_t blocks, std::byte* out) = nullptr;
};

extern const StorageFormat kFormatF32;
extern const StorageFormat kFormatF16;
extern const StorageFormat kFormatBF16;
extern const StorageFormat kFormatQ8_0;
extern const StorageFormat kFormatQ4_0;
extern const StorageFormat kFormatQ4_1;
extern const StorageFormat kFormatQ5_0;
extern const StorageFormat kFormatQ5_1;
extern const StorageFormat kFormatQ4_K;
extern const StorageFormat kFormatQ5_K;
extern const StorageFormat kFormatQ6_K;

inline constexpr std::array<const StorageFormat*, 11> kFormats = {
    &kFormatF32,  &kFormatF16,  &kFormatBF16, &kFormatQ8_0, &kFormatQ4_0, &kFormatQ4_1,
    &kFormatQ5_0, &kFormatQ5_1, &kFormatQ4_K, &kFormatQ5_K, &kFormatQ6_K};

// nullptr when Quern has no such format.
const StorageFormat* find_format(uint32_t ggml_type);
const StorageFormat* find_format(std::string_view name);

// "F32, F16, ...", for messages.
std::string format_names();

}  // namespace quern
