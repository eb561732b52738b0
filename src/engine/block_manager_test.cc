#include "engine/block_manager.h"

#include <algorithm>
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

// `blocks` whole blocks of tokens, and one token more.
std::vector<int32_t> some_tokens(int64_t blocks, int32_t first) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i <= blocks * kKvBlockTokens; ++i) {
    tokens.push_back(first + static_cast<int32_t>(i));
  }
  return tokens;
}

int64_t all(const std::vector<int32_t>& tokens) { return static_cast<int64_t>(tokens.size()); }

BlockTable computed_table(BlockManager& manager,
                          const std::vector<int32_t>& tokens,
                          uint64_t salt = 0) {
  BlockTable table(manager, manager.total(), salt);
  EXPECT_TRUE(table.cover(all(tokens)));
  table.publish(tokens, all(tokens));
  return table;
}

TEST(PrefixCache, SharesFullBlocksOfEqualTokens) {
  BlockManager manager(8);
  const std::vector<int32_t> tokens = some_tokens(2, 0);
  const BlockTable owner = computed_table(manager, tokens);
  BlockTable other(manager, 8);
  EXPECT_EQ(other.count_in_use(tokens, all(tokens)), 2);
  EXPECT_EQ(other.adopt(tokens, all(tokens)), 2 * kKvBlockTokens);
  EXPECT_EQ(other.ids()[0], owner.ids()[0]);
  EXPECT_EQ(other.ids()[1], owner.ids()[1]);
  EXPECT_EQ(manager.free(), 5);
  EXPECT_EQ(manager.references(), 5);
  EXPECT_TRUE(manager.consistent());
}

TEST(PrefixCache, SharesNoBlockThatEndsBehindTheLimit) {
  BlockManager manager(8);
  const std::vector<int32_t> tokens = some_tokens(2, 0);
  const BlockTable owner = computed_table(manager, tokens);
  BlockTable other(manager, 8);
  EXPECT_EQ(other.adopt(tokens, 2 * kKvBlockTokens - 1), kKvBlockTokens);
  EXPECT_EQ(other.adopt(tokens, 2 * kKvBlockTokens), 2 * kKvBlockTokens);  // goes on from there
}

TEST(PrefixCache, TellsTokensAndWhatLiesBeforeThemApart) {
  // Two buckets for each block, so that most of these meet others in theirs.
  BlockManager manager(40);
  std::vector<BlockTable> tables;
  for (int32_t first = 0; first < 10; ++first) {
    std::vector<int32_t> tokens = some_tokens(2, 0);  // equal in the second block
    tokens[0] = first;
    tables.push_back(computed_table(manager, tokens));
  }
  for (int32_t first = 0; first < 11; ++first) {
    std::vector<int32_t> tokens = some_tokens(2, 0);
    tokens[0] = first;
    BlockTable table(manager, 4);
    EXPECT_EQ(table.adopt(tokens, all(tokens)), first < 10 ? 2 * kKvBlockTokens : 0);
    if (first == 10) break;
    EXPECT_EQ(table.ids()[1], tables[static_cast<size_t>(first)].ids()[1]);
  }
}

TEST(PrefixCache, NeverSharesAcrossSalts) {
  BlockManager manager(8);
  const std::vector<int32_t> tokens = some_tokens(1, 0);
  const BlockTable owner = computed_table(manager, tokens, 1);
  BlockTable stranger(manager, 4, 2), friendly(manager, 4, 1);
  EXPECT_EQ(stranger.adopt(tokens, all(tokens)), 0);
  EXPECT_EQ(friendly.adopt(tokens, all(tokens)), kKvBlockTokens);
}

TEST(PrefixCache, KeepsWhatWasReleasedUntilItsBlockIsTaken) {
  BlockManager manager(3);
  const std::vector<int32_t> tokens = some_tokens(2, 0);
  computed_table(manager, tokens).release();
  EXPECT_EQ(manager.free(), 3);
  EXPECT_EQ(manager.cached(), 2);
  BlockTable blank(manager, 3);
  ASSERT_TRUE(blank.cover(1));
  EXPECT_EQ(manager.cached(), 2);  // the blank block goes first
  ASSERT_TRUE(blank.cover(kKvBlockTokens + 1));
  EXPECT_EQ(manager.cached(), 1);
  BlockTable again(manager, 3);
  EXPECT_EQ(again.count_in_use(tokens, all(tokens)), 0);
  EXPECT_EQ(again.adopt(tokens, all(tokens)), kKvBlockTokens);  // the end of the prefix went first
  EXPECT_TRUE(manager.consistent());
}

TEST(PrefixCache, TakesTheLeastRecentlyUsedFirst) {
  BlockManager manager(2);
  const std::vector<int32_t> old = some_tokens(1, 0), recent = some_tokens(1, 500);
  for (const auto& tokens : {old, recent, old}) {  // the last time from the cache
    BlockTable table(manager, 2);
    if (table.adopt(tokens, all(tokens)) > 0) continue;
    ASSERT_TRUE(table.cover(kKvBlockTokens));
    table.publish(tokens, kKvBlockTokens);
  }
  BlockTable taker(manager, 1), reader(manager, 1);
  ASSERT_TRUE(taker.cover(1));
  EXPECT_EQ(reader.adopt(recent, all(recent)), 0);
  EXPECT_EQ(reader.adopt(old, all(old)), kKvBlockTokens);
}

TEST(PrefixCache, MergesBlocksThatWereComputedTwice) {
  BlockManager manager(8);
  const std::vector<int32_t> tokens = some_tokens(2, 0);
  BlockTable first(manager, 4), second(manager, 4);
  ASSERT_TRUE(first.cover(all(tokens)) && second.cover(all(tokens)));
  first.publish(tokens, all(tokens));
  EXPECT_EQ(manager.free(), 2);
  second.publish(tokens, all(tokens));
  EXPECT_EQ(manager.free(), 4);
  EXPECT_EQ(second.ids()[1], first.ids()[1]);
  EXPECT_NE(second.ids()[2], first.ids()[2]);  // not full
  EXPECT_TRUE(manager.consistent());
}

TEST(PrefixCache, ReplacesBlocksThatWereTakenAndNotYetComputed) {
  BlockManager manager(8);
  const std::vector<int32_t> tokens = some_tokens(3, 0);
  BlockTable late(manager, 4);
  ASSERT_TRUE(late.cover(all(tokens)));
  const BlockTable owner = computed_table(manager, tokens);
  EXPECT_EQ(manager.free(), 0);
  EXPECT_EQ(late.adopt(tokens, all(tokens)), 3 * kKvBlockTokens);
  EXPECT_EQ(manager.free(), 3);
  EXPECT_EQ(late.size(), 4);
}

TEST(PrefixCache, ForgetsWhatIsRetracted) {
  BlockManager manager(8);
  const std::vector<int32_t> tokens = some_tokens(2, 0);
  BlockTable owner = computed_table(manager, tokens);
  BlockTable other(manager, 4);
  other.adopt(tokens, all(tokens));
  owner.retract();
  owner.release();
  BlockTable third(manager, 4);
  EXPECT_EQ(third.adopt(tokens, all(tokens)), 0);
  other.release();
  EXPECT_EQ(manager.cached(), 0);
  EXPECT_TRUE(manager.consistent());
}

TEST(PrefixCache, HoldsNothingWhenItIsOff) {
  BlockManager manager(8, PrefixCaching::kOff);
  const std::vector<int32_t> tokens = some_tokens(2, 0);
  const BlockTable owner = computed_table(manager, tokens);
  BlockTable other(manager, 4);
  EXPECT_EQ(other.adopt(tokens, all(tokens)), 0);
  EXPECT_EQ(other.count_in_use(tokens, all(tokens)), 0);
}

// A table, its tokens, and how many of them are "computed": written into the blocks' oracle.
struct Writer {
  BlockTable table;
  uint64_t salt = 0;
  std::vector<int32_t> tokens;
  int64_t computed = 0;
};

// Writes tokens into blocks as a model does, in `cells`, and checks every position that it counts
// on against its own tokens, so that a block shared wrongly or overwritten shows.
class PrefixCacheRandom {
 public:
  void run(uint64_t operations) {
    for (uint64_t i = 0; i < operations; ++i) {
      operation_ = i;
      Writer& writer = writers_[pick(0, writers_.size())];
      switch (pick(1, 8)) {
        case 0:
          release(writer);
          break;
        case 1:
          if (pick(5, 20) == 0) writer.table.retract();
          release(writer);
          break;
        default:
          compute(writer, static_cast<int64_t>(1 + pick(2, 70)));
      }
      ASSERT_TRUE(holds_its_tokens(writer)) << "operation " << i;
      if (i % 16 == 0) {
        ASSERT_TRUE(manager_.consistent()) << "operation " << i;
        ASSERT_EQ(manager_.references(), owned()) << "operation " << i;
      }
    }
    for (Writer& writer : writers_) release(writer);
    EXPECT_EQ(manager_.free(), kBlocks);
    EXPECT_GT(adopted_, 1000);
    EXPECT_GT(evictions_, 1000);
  }

 private:
  static constexpr int64_t kBlocks = 29;
  static constexpr uint64_t kSeed = 11;

  uint64_t pick(uint64_t stream, uint64_t n) { return random_bits(kSeed, stream, operation_) % n; }

  // Few distinct tokens for whole blocks, so that prefixes meet.
  int32_t token_at(const Writer& writer, int64_t position) {
    if (position % kKvBlockTokens == 0) return static_cast<int32_t>(pick(3, 2));
    return writer.tokens[static_cast<size_t>(position - 1)];
  }

  int32_t& cell(const Writer& writer, int64_t position) {
    const int32_t block = writer.table.ids()[static_cast<size_t>(position / kKvBlockTokens)];
    return cells_[static_cast<size_t>(block * kKvBlockTokens + position % kKvBlockTokens)];
  }

  void compute(Writer& writer, int64_t count) {
    const int64_t end = std::min<int64_t>(writer.computed + count, 7 * kKvBlockTokens);
    while (all(writer.tokens) < end) writer.tokens.push_back(token_at(writer, all(writer.tokens)));
    const int64_t prefix = writer.table.adopt(writer.tokens, end);
    adopted_ += prefix > writer.computed ? 1 : 0;
    writer.computed = std::max(writer.computed, prefix);
    const int64_t cached_before = manager_.cached();
    if (!writer.table.cover(end)) return release(writer);
    evictions_ += cached_before - manager_.cached();
    for (; writer.computed < end; ++writer.computed) {
      cell(writer, writer.computed) = writer.tokens[static_cast<size_t>(writer.computed)];
    }
    writer.table.publish(writer.tokens, writer.computed);
  }

  void release(Writer& writer) {
    writer.table.release();
    writer.computed = 0;
    if (pick(4, 3) == 0) writer.tokens.clear();
  }

  bool holds_its_tokens(const Writer& writer) {
    for (int64_t i = 0; i < writer.computed; ++i) {
      if (cell(writer, i) != writer.tokens[static_cast<size_t>(i)]) return false;
    }
    return true;
  }

  int64_t owned() const {
    int64_t count = 0;
    for (const Writer& writer : writers_) count += writer.table.size();
    return count;
  }

  BlockManager manager_{kBlocks};
  std::vector<int32_t> cells_ = std::vector<int32_t>(kBlocks * kKvBlockTokens, -1);
  std::vector<Writer> writers_ = make_writers();
  uint64_t operation_ = 0;
  int64_t adopted_ = 0;
  int64_t evictions_ = 0;

  std::vector<Writer> make_writers() {
    std::vector<Writer> writers;
    for (uint64_t i = 0; i < 9; ++i) {
      writers.push_back({BlockTable(manager_, kBlocks, i % 2), i % 2, {}, 0});
    }
    return writers;
  }
};

TEST(PrefixCache, NeverServesOtherTokensWhateverHappens) { PrefixCacheRandom().run(100000); }

}  // namespace
}  // namespace quern
