// Q6_K: 256 elements in 210 bytes: 128 bytes of low nibbles, 64 bytes of upper bit pairs, 16 signed
// bytes of scales for groups of 16, d f16. w = d * scale * (code - 32).
#include "tensor/formats/group_format.h"

namespace quern {
namespace {

struct Q6_K {
  static constexpr int kElements = 256;
  static constexpr int kBytes = 210;
  static constexpr int kGroup = 16;
  static constexpr int kBits = 6;
  static constexpr GroupOffset kOffset = GroupOffset::kZeroPoint;
  static constexpr uint8_t kZero = 32;

  // Each half of 128 elements is four runs of 32: runs 0 and 1 are the low nibbles of its 64 bytes,
  // runs 2 and 3 the high ones; bits 2r and 2r + 1 of byte i of its 32 upper bytes belong to
  // element i of run r.
  static void split(const std::byte* block, uint8_t* codes, float* scales, float* /*minima*/) {
    const float d = load_f16(block + 208);
    for (int g = 0; g < 16; ++g) {
      scales[g] = d * static_cast<float>(static_cast<int8_t>(load_u8(block + 192 + g)));
    }
    for (int half = 0; half < 2; ++half, codes += 128) {
      const std::byte* low = block + ptrdiff_t{64} * half;
      const std::byte* high = block + 128 + ptrdiff_t{32} * half;
      for (int i = 0; i < 32; ++i) {
        const unsigned a = load_u8(low + i);
        const unsigned b = load_u8(low + i + 32);
        const unsigned upper = load_u8(high + i);
        codes[i] = static_cast<uint8_t>((a & 0xf) | (upper & 3) << 4);
        codes[i + 32] = static_cast<uint8_t>((b & 0xf) | (upper >> 2 & 3) << 4);
        codes[i + 64] = static_cast<uint8_t>(a >> 4 | (upper >> 4 & 3) << 4);
        codes[i + 96] = static_cast<uint8_t>(b >> 4 | (upper >> 6) << 4);
      }
    }
  }
};

}  // namespace

constinit const StorageFormat kFormatQ6_K = group_format<Q6_K>("Q6_K", 14);

}  // namespace quern
