#include "tensor/buffer.h"

#include <cstring>
#include <vector>

#include <gtest/gtest.h>

namespace quern {
namespace {

TEST(HugePageArena, LaysBuffersSideBySideZeroedAndAligned) {
  HugePageArena arena(size_t{1} << 16);
  std::vector<Buffer> buffers;
  for (size_t i = 0; i < 100; ++i) {
    buffers.push_back(arena.allocate(100 * i));
    ASSERT_EQ(buffers[i].bytes(), 100 * i);
    ASSERT_EQ(reinterpret_cast<size_t>(buffers[i].data()) % 64, 0u);
    for (size_t b = 0; b < 100 * i; ++b) ASSERT_EQ(buffers[i].data()[b], std::byte{0});
    if (i > 0) std::memset(buffers[i].data(), static_cast<int>(i), 100 * i);
  }
  for (size_t i = 0; i < 100; ++i) {
    for (size_t b = 0; b < 100 * i; ++b) ASSERT_EQ(buffers[i].data()[b], std::byte(i));
  }
  EXPECT_EQ(buffers[2].data(), buffers[1].data() + 128);
}

TEST(HugePageArena, BuffersOutliveTheArenaAndMove) {
  Buffer kept;
  {
    HugePageArena arena;
    Buffer first = arena.allocate(64);
    Buffer second = arena.allocate(64);
    first.data()[63] = std::byte{7};
    second.data()[0] = std::byte{9};
    kept = std::move(first);
  }
  EXPECT_EQ(kept.data()[63], std::byte{7});
  kept = Buffer(10);
  EXPECT_EQ(kept.data()[9], std::byte{0});
}

TEST(HugePageArena, MapsLargeBuffersOnTheirOwn) {
  HugePageArena arena(4096);
  const Buffer large = arena.allocate(size_t{3} << 20);
  large.data()[(size_t{3} << 20) - 1] = std::byte{1};
  EXPECT_EQ(reinterpret_cast<size_t>(large.data()) % (size_t{2} << 20), 0u);
  EXPECT_EQ(arena.allocate(0).data(), nullptr);
}

}  // namespace
}  // namespace quern
