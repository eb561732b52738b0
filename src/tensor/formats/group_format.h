// Turns the layout of one block into a StorageFormat: its loops over blocks, written once.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/float16.h"
#include "tensor/formats/formats.h"

namespace quern {

inline uint8_t load_u8(const std::byte* at) { return static_cast<uint8_t>(*at); }

inline uint32_t load_u32(const std::byte* at) {
  uint32_t value = 0;
  std::memcpy(&value, at, sizeof value);
  return value;
}

// An f16 at any address, widened.
inline float load_f16(const std::byte* at) {
  uint16_t bits = 0;
  std::memcpy(&bits, at, sizeof bits);
  return f16_to_f32(bits);
}

inline void store_f16(float value, std::byte* at) {
  const uint16_t bits = f32_to_f16(value);
  std::memcpy(at, &bits, sizeof bits);
}

// A Layout states kElements and kBytes of a block, kGroup, kBits, kOffset, kZero (0 for minima) and
// split(block, codes, scales, minima) of one block; minima is nullptr with a zero point.
template <typename Layout>
void split_blocks(const std::byte* data, int64_t blocks, const GroupParts& parts) {
  constexpr int64_t kGroups = Layout::kElements / Layout::kGroup;
  for (int64_t b = 0; b < blocks; ++b) {
    float* minima = parts.minima == nullptr ? nullptr : parts.minima + b * kGroups;
    Layout::split(data + b * Layout::kBytes, parts.codes + b * Layout::kElements,
                  parts.scales + b * kGroups, minima);
  }
}

template <typename Layout>
void decode_blocks(const std::byte* data, int64_t blocks, float* out) {
  constexpr int kGroups = Layout::kElements / Layout::kGroup;
  std::array<uint8_t, Layout::kElements> codes;
  std::array<float, kGroups> scales;
  std::array<float, kGroups> minima;
  for (int64_t b = 0; b < blocks; ++b, data += Layout::kBytes) {
    Layout::split(data, codes.data(), scales.data(), minima.data());
    for (int g = 0; g < kGroups; ++g) {
      const float scale = scales[static_cast<size_t>(g)];
      const uint8_t* group = codes.data() + g * Layout::kGroup;
      if constexpr (Layout::kOffset == GroupOffset::kZeroPoint) {
        for (int i = 0; i < Layout::kGroup; ++i) {
          out[i] = scale * static_cast<float>(group[i] - Layout::kZero);
        }
      } else {
        const float minimum = minima[static_cast<size_t>(g)];
        for (int i = 0; i < Layout::kGroup; ++i) {
          out[i] = scale * static_cast<float>(group[i]) + minimum;
        }
      }
      out += Layout::kGroup;
    }
  }
}

template <typename Layout>
constexpr StorageFormat group_format(std::string_view name, uint32_t ggml_type) {
  return {.name = name,
          .ggml_type = ggml_type,
          .block_elements = Layout::kElements,
          .block_bytes = Layout::kBytes,
          .decode = decode_blocks<Layout>,
          .split = split_blocks<Layout>,
          .group_size = Layout::kGroup,
          .bits = Layout::kBits,
          .offset = Layout::kOffset,
          .zero = Layout::kZero};
}

// The 32 nibbles of 16 bytes: the low ones first, then the high ones.
inline void split_nibbles_16(const std::byte* packed, uint8_t* codes) {
  for (int i = 0; i < 16; ++i) {
    const uint8_t byte = load_u8(packed + i);
    codes[i] = byte & 0xf;
    codes[i + 16] = static_cast<uint8_t>(byte >> 4);
  }
}

// Adds bit i of `high` to code i of 32 as its fifth bit.
inline void add_fifth_bits(uint32_t high, uint8_t* codes) {
  for (int i = 0; i < 32; ++i) {
    codes[i] = static_cast<uint8_t>(codes[i] | ((high >> i) & 1u) << 4);
  }
}

// The eight 6-bit scales and eight 6-bit minima that Q4_K and Q5_K keep in 12 bytes: the low six
// bits of bytes 0-3 and 4-7 are scales and minima 0-3; bytes 8-11 hold the low nibbles of scales
// and minima 4-7, whose upper two bits are the top of bytes 0-3 and 4-7. Applies d and dmin to
// them.
inline void split_k_scales(const std::byte* block, float* scales, float* minima) {
  const float d = load_f16(block);
  const float dmin = load_f16(block + 2);
  const std::byte* packed = block + 4;
  for (int i = 0; i < 4; ++i) {
    const int a = load_u8(packed + i);
    const int b = load_u8(packed + i + 4);
    const int c = load_u8(packed + i + 8);
    scales[i] = d * static_cast<float>(a & 63);
    minima[i] = -(dmin * static_cast<float>(b & 63));
    scales[i + 4] = d * static_cast<float>((c & 0xf) | (a >> 6) << 4);
    minima[i + 4] = -(dmin * static_cast<float>(c >> 4 | (b >> 6) << 4));
  }
}

}  // namespace quern
