#include "engine/block_manager.h"

#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"

namespace quern {
namespace {

TEST(BlockManager, CoversPositionsWithWholeBlocks) {
  BlockManager manager(4);
  BlockTable table(manager, 4);
  EXPECT_TRUE(table.cover(1));
  EXPECT_EQ(table.size(), 1);
  EXPECT_TRUE(table.cover(kKvBlockTokens));
  EXPECT_EQ(table.size(), 1);
  EXPECT_TRUE(table.cover(kKvBlockTokens + 1));
  EXPECT_EQ(table.size(), 2);
  EXPECT_EQ(manager.free(), 2);
}

TEST(BlockManager, RefusesWhatIsNotFreeAndTakesNothing) {
  BlockManager manager(3);
  BlockTable first(manager, 3);
  BlockTable second(manager, 3);
  ASSERT_TRUE(first.cover(2 * kKvBlockTokens));
  EXPECT_FALSE(second.cover(2 * kKvBlockTokens));
  EXPECT_EQ(second.size(), 0);
  EXPECT_EQ(manager.free(), 1);
  first.release();
  EXPECT_TRUE(second.cover(2 * kKvBlockTokens));
}

TEST(BlockManager, TakesBlocksBackWhenTheTableEnds) {
  BlockManager manager(2);
  {
    BlockTable table(manager, 2);
    ASSERT_TRUE(table.cover(2 * kKvBlockTokens));
    EXPECT_EQ(manager.free(), 0);
    const BlockTable moved(std::move(table));
    EXPECT_EQ(moved.size(), 2);
  }
  EXPECT_EQ(manager.free(), 2);
  EXPECT_TRUE(manager.consistent());
}

TEST(BlockManager, NeverOwnsABlockTwiceWhateverHappens) {
  constexpr int64_t kBlocks = 37;
  constexpr uint64_t kSeed = 5;
  BlockManager manager(kBlocks);
  std::vector<BlockTable> tables;
  for (int i = 0; i < 8; ++i) tables.emplace_back(manager, kBlocks);
  for (uint64_t i = 0; i < 20000; ++i) {
    BlockTable& table = tables[random_bits(kSeed, 0, i) % tables.size()];
    const auto tokens = static_cast<int64_t>(random_bits(kSeed, 1, i) % (12 * kKvBlockTokens));
    if (random_bits(kSeed, 2, i) % 4 == 0) {
      table.release();
    } else if (!table.cover(tokens)) {
      EXPECT_GT(blocks_for(tokens) - table.size(), manager.free());
    }
    std::set<int32_t> owned;
    int64_t count = 0;
    for (const BlockTable& each : tables) {
      owned.insert(each.ids().begin(), each.ids().end());
      count += each.size();
    }
    ASSERT_EQ(static_cast<int64_t>(owned.size()), count) << "step " << i;
    ASSERT_EQ(count + manager.free(), kBlocks);
    if (i % 100 == 0) {
      ASSERT_TRUE(manager.consistent());
    }
  }
}

}  // namespace
}  // namespace quern
