// Q4_K: 256 elements in 144 bytes: d f16, dmin f16, 12 bytes of 6-bit scales and minima for eight
// groups of 32, 128 bytes of nibbles. w = d * scale * code - dmin * minimum.
#include "tensor/formats/group_format.h"

namespace quern {
namespace {

struct Q4_K {
  static constexpr int kElements = 256;
  static constexpr int kBytes = 144;
  static constexpr int kGroup = 32;
  static constexpr int kBits = 4;
  static constexpr GroupOffset kOffset = GroupOffset::kMinimum;
  static constexpr uint8_t kZero = 0;

  // Each 32 bytes hold two groups: the low nibbles, then the high ones.
  static void split(const std::byte* block, uint8_t* codes, float* scales, float* minima) {
    split_k_scales(block, scales, minima);
    const std::byte* packed = block + 16;
    for (int pair = 0; pair < 4; ++pair, packed += 32, codes += 64) {
      for (int i = 0; i < 32; ++i) {
        const uint8_t byte = load_u8(packed + i);
        codes[i] = byte & 0xf;
        codes[i + 32] = static_cast<uint8_t>(byte >> 4);
      }
    }
  }
};

}  // namespace

constinit const StorageFormat kFormatQ4_K = group_format<Q4_K>("Q4_K", 12);

}  // namespace quern
