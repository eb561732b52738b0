// Q4_1: 32 elements in 20 bytes: scale f16, minimum f16, 16 bytes of nibbles.
// w = scale * code + minimum.
#include <algorithm>
#include <cmath>

#include "tensor/formats/group_format.h"

namespace quern {
namespace {

struct Q4_1 {
  static constexpr int kElements = 32;
  static constexpr int kBytes = 20;
  static constexpr int kGroup = 32;
  static constexpr int kBits = 4;
  static constexpr GroupOffset kOffset = GroupOffset::kMinimum;
  static constexpr uint8_t kZero = 0;

  static void split(const std::byte* block, uint8_t* codes, float* scales, float* minima) {
    scales[0] = load_f16(block);
    minima[0] = load_f16(block + 2);
    split_nibbles_16(block + 4, codes);
  }
};

void encode_block(const float* values, std::byte* block) {
  const auto [low, high] = std::minmax_element(values, values + 32);
  const float minimum = *low;
  const float scale = (*high - minimum) / 15;
  const float inverse = scale == 0 ? 0 : 1 / scale;
  store_f16(scale, block);
  store_f16(minimum, block + 2);
  const auto code = [&](int i) {
    const float steps = std::floor((values[i] - minimum) * inverse + 0.5f);
    return static_cast<unsigned>(std::clamp(steps, 0.0f, 15.0f));
  };
  for (int i = 0; i < 16; ++i) block[4 + i] = static_cast<std::byte>(code(i) | code(i + 16) << 4);
}

void encode(const float* values, int64_t blocks, std::byte* out) {
  for (int64_t b = 0; b < blocks; ++b) encode_block(values + b * 32, out + b * Q4_1::kBytes);
}

constexpr StorageFormat format() {
  StorageFormat made = group_format<Q4_1>("Q4_1", 3);
  made.encode = encode;
  return made;
}

}  // namespace

constinit const StorageFormat kFormatQ4_1 = format();

}  // namespace quern
