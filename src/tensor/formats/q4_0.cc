// Q4_0: 32 elements in 18 bytes: scale f16, 16 bytes of nibbles. w = scale * (code - 8).
#include <algorithm>
#include <cmath>

#include "tensor/formats/group_format.h"

namespace quern {
namespace {

struct Q4_0 {
  static constexpr int kElements = 32;
  static constexpr int kBytes = 18;
  static constexpr int kGroup = 32;
  static constexpr int kBits = 4;
  static constexpr GroupOffset kOffset = GroupOffset::kZeroPoint;
  static constexpr uint8_t kZero = 8;

  static void split(const std::byte* block, uint8_t* codes, float* scales, float* /*minima*/) {
    scales[0] = load_f16(block);
    split_nibbles_16(block + 2, codes);
  }
};

// The number of largest magnitude becomes code 0, so the scale has the sign opposite to it.
void encode_block(const float* values, std::byte* block) {
  float extreme = 0;
  for (int i = 0; i < 32; ++i) {
    if (std::fabs(values[i]) > std::fabs(extreme)) extreme = values[i];
  }
  const float scale = extreme / -8;
  const float inverse = scale == 0 ? 0 : 1 / scale;
  store_f16(scale, block);
  const auto code = [&](int i) {
    return static_cast<unsigned>(std::clamp(std::floor(values[i] * inverse + 8.5f), 0.0f, 15.0f));
  };
  for (int i = 0; i < 16; ++i) block[2 + i] = static_cast<std::byte>(code(i) | code(i + 16) << 4);
}

void encode(const float* values, int64_t blocks, std::byte* out) {
  for (int64_t b = 0; b < blocks; ++b) encode_block(values + b * 32, out + b * Q4_0::kBytes);
}

constexpr StorageFormat format() {
  StorageFormat made = group_format<Q4_0>("Q4_0", 2);
  made.encode = encode;
  return made;
}

}  // namespace

constinit const StorageFormat kFormatQ4_0 = format();

}  // namespace quern
