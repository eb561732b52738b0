// Q5_0: 32 elements in 22 bytes: scale f16, 32 fifth bits, 16 bytes of nibbles.
// w = scale * (code - 16).
#include "tensor/formats/group_format.h"

namespace quern {
namespace {

struct Q5_0 {
  static constexpr int kElements = 32;
  static constexpr int kBytes = 22;
  static constexpr int kGroup = 32;
  static constexpr int kBits = 5;
  static constexpr GroupOffset kOffset = GroupOffset::kZeroPoint;
  static constexpr uint8_t kZero = 16;

  static void split(const std::byte* block, uint8_t* codes, float* scales, float* /*minima*/) {
    scales[0] = load_f16(block);
    split_nibbles_16(block + 6, codes);
    add_fifth_bits(load_u32(block + 2), codes);
  }
};

}  // namespace

constinit const StorageFormat kFormatQ5_0 = group_format<Q5_0>("Q5_0", 6);

}  // namespace quern
