// Q5_K: 256 elements in 176 bytes: d f16, dmin f16, 12 bytes of 6-bit scales and minima for eight
// groups of 32, 32 bytes of fifth bits, 128 bytes of nibbles.
// w = d * scale * code - dmin * minimum.
#include "tensor/formats/group_format.h"

namespace quern {
namespace {

struct Q5_K {
  static constexpr int kElements = 256;
  static constexpr int kBytes = 176;
  static constexpr int kGroup = 32;
  static constexpr int kBits = 5;
  static constexpr GroupOffset kOffset = GroupOffset::kMinimum;
  static constexpr uint8_t kZero = 0;

  // Each 32 bytes hold the nibbles of two groups, the low ones first; bit g of byte i of `high` is
  // the fifth bit of element i of group g.
  static void split(const std::byte* block, uint8_t* codes, float* scales, float* minima) {
    split_k_scales(block, scales, minima);
    const std::byte* high = block + 16;
    const std::byte* packed = block + 48;
    for (int pair = 0; pair < 4; ++pair, packed += 32, codes += 64) {
      for (int i = 0; i < 32; ++i) {
        const unsigned byte = load_u8(packed + i);
        const unsigned bits = load_u8(high + i) >> (2 * pair);
        codes[i] = static_cast<uint8_t>((byte & 0xf) | (bits & 1) << 4);
        codes[i + 32] = static_cast<uint8_t>(byte >> 4 | (bits & 2) << 3);
      }
    }
  }
};

}  // namespace

constinit const StorageFormat kFormatQ5_K = group_format<Q5_K>("Q5_K", 13);

}  // namespace quern
