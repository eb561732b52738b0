// Q8_0: 32 elements in 34 bytes: scale f16, 32 signed bytes. w = scale * byte, split with
// code = byte + 128.
#include <algorithm>
#include <cmath>

#include "tensor/formats/group_format.h"

namespace quern {
namespace {

struct Q8_0 {
  static constexpr int kElements = 32;
  static constexpr int kBytes = 34;
  static constexpr int kGroup = 32;
  static constexpr int kBits = 8;
  static constexpr GroupOffset kOffset = GroupOffset::kZeroPoint;
  static constexpr uint8_t kZero = 128;

  static void split(const std::byte* block, uint8_t* codes, float* scales, float* /*minima*/) {
    scales[0] = load_f16(block);
    for (int i = 0; i < kElements; ++i) {
      codes[i] = static_cast<uint8_t>(load_u8(block + 2 + i) ^ 0x80u);  // adds 128 modulo 256
    }
  }
};

void encode_block(const float* values, std::byte* block) {
  float largest = 0;
  for (int i = 0; i < 32; ++i) largest = std::max(largest, std::fabs(values[i]));
  const float scale = largest / 127;
  const float inverse = scale == 0 ? 0 : 1 / scale;
  store_f16(scale, block);
  for (int i = 0; i < 32; ++i) {
    const float steps = std::clamp(std::round(values[i] * inverse), -127.0f, 127.0f);
    block[2 + i] = static_cast<std::byte>(static_cast<int8_t>(steps));
  }
}

void encode(const float* values, int64_t blocks, std::byte* out) {
  for (int64_t b = 0; b < blocks; ++b) encode_block(values + b * 32, out + b * Q8_0::kBytes);
}

constexpr StorageFormat format() {
  StorageFormat made = group_format<Q8_0>("Q8_0", 8);
  made.encode = encode;
  return made;
}

}  // namespace

constinit const StorageFormat kFormatQ8_0 = format();

}  // namespace quern
