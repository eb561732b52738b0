// Q5_1: 32 elements in 24 bytes: scale f16, minimum f16, 32 fifth bits, 16 bytes of nibbles.
// w = scale * code + minimum.
#include "tensor/formats/group_format.h"

namespace quern {
namespace {

struct Q5_1 {
  static constexpr int kElements = 32;
  static constexpr int kBytes = 24;
  static constexpr int kGroup = 32;
  static constexpr int kBits = 5;
  static constexpr GroupOffset kOffset = GroupOffset::kMinimum;
  static constexpr uint8_t kZero = 0;

  static void split(const std::byte* block, uint8_t* codes, float* scales, float* minima) {
    scales[0] = load_f16(block);
    minima[0] = load_f16(block + 2);
    split_nibbles_16(block + 8, codes);
    add_fifth_bits(load_u32(block + 4), codes);
  }
};

}  // namespace

constinit const StorageFormat kFormatQ5_1 = group_format<Q5_1>("Q5_1", 7);

}  // namespace quern
