// The blocks of the key-value cache: who owns which, by RAII, and which prefixes they hold.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/check.h"
#include "kernels/backend.h"

namespace quern {

class BlockManager;

// Blocks that `tokens` positions take.
constexpr int64_t blocks_for(int64_t tokens) {
  return (tokens + kKvBlockTokens - 1) / kKvBlockTokens;
}

// The end of a chain of full blocks. Its serial stands for the salt and all tokens up to here: it
// is given once and never again, so two chains with equal serials hold the same tokens. The hash,
// which finds blocks, is of the same but may collide.
struct BlockLink {
  uint64_t hash = 0;
  uint64_t serial = 0;  // 0: no block yet
};

// The blocks of one sequence in order of position; gives them back when it ends. A full block may
// be shared with other tables; nobody writes into it again. Move-only.
class BlockTable {
 public:
  // No block yet; memory for `capacity` ids is taken here, so growing takes none. The manager
  // outlives the table. Only tables of one salt share blocks.
  BlockTable(BlockManager& manager, int64_t capacity, uint64_t salt = 0);
  BlockTable(BlockTable&& other) noexcept
      : manager_(other.manager_),
        salt_(other.salt_),
        ids_(std::exchange(other.ids_, {})),
        full_(std::exchange(other.full_, 0)),
        end_(other.end_) {}
  BlockTable& operator=(BlockTable&&) = delete;
  BlockTable(const BlockTable&) = delete;
  BlockTable& operator=(const BlockTable&) = delete;

  ~BlockTable() { release(); }

  // Grows until `tokens` positions are covered, all or nothing: false when the cache has too few
  // free blocks. Requires tokens within the capacity.
  [[nodiscard]] bool cover(int64_t tokens);

  // Gives every block back, the last first, so that a prefix stays longest. The full ones keep what
  // they hold until they are taken for something else.
  void release();

  // Notes which blocks the first `computed` tokens fill, so that others may share them. Where the
  // same tokens lie in another block already, shares that one and gives its own back. The tokens
  // are those of earlier calls and what came after.
  void publish(std::span<const int32_t> tokens, int64_t computed);

  // Goes on from the published blocks by those that hold the next tokens, as long as all they hold
  // is among the first `limit` tokens. Returns the positions that are published then.
  int64_t adopt(std::span<const int32_t> tokens, int64_t limit);

  // How many blocks adopt() would take that are in use, and so not among the free ones.
  int64_t count_in_use(std::span<const int32_t> tokens, int64_t limit) const;

  // Nobody will share the published blocks from now on: what they hold is not to be trusted.
  void retract();

  std::span<const int32_t> ids() const { return ids_; }

  int64_t size() const { return static_cast<int64_t>(ids_.size()); }

 private:
  void share(int64_t index, int32_t block);

  BlockManager* manager_;
  uint64_t salt_;
  std::vector<int32_t> ids_;
  int64_t full_ = 0;  // the first of them are published
  BlockLink end_;     // of those
};

enum class PrefixCaching : uint8_t { kOff, kOn };

// Hands out block ids [0, total). A block that nobody owns is free, whether it is blank or still
// holds a prefix; blank ones are taken first, then those that were used least recently.
//
// A block is found by a hash over the chain of its tokens from the first on and the salt, and taken
// only when its salt, its tokens and the serial of the block before it are equal, so that a
// collision never serves another prefix. Memory is taken at construction. Owner thread only.
class BlockManager {
 public:
  explicit BlockManager(int64_t total, PrefixCaching caching = PrefixCaching::kOn);

  int64_t total() const { return static_cast<int64_t>(blocks_.size()); }

  int64_t free() const { return blank_ + cached_; }

  // The free blocks that hold a prefix.
  int64_t cached() const { return cached_; }

  // Owners of all blocks: one that two tables share counts twice.
  int64_t references() const;

  // Whether every block is either blank and free, cached and free, or owned (blank + cached + owned
  // == total), each free one once in the list, and every block that holds a prefix is found by it.
  bool consistent() const;

 private:
  friend class BlockTable;

  struct Block {
    int32_t references = 0;
    int32_t previous = 0;  // in the list of free blocks
    int32_t next = 0;
    int32_t next_in_bucket = 0;
    BlockLink link;       // serial 0: blank
    uint64_t parent = 0;  // the serial of the block before
    uint64_t salt = 0;
  };

  // What a full block would hold: `tokens` after the blocks of `parent`.
  struct Content {
    BlockLink parent;
    uint64_t salt = 0;
    std::span<const int32_t> tokens;  // kKvBlockTokens of them

    uint64_t hash() const;
  };

  int32_t take();             // requires free() > 0; the block is blank
  void share(int32_t block);  // one owner more
  void give(int32_t block);   // one owner less; requires an owned block
  std::optional<int32_t> find(const Content& content) const;
  void publish(int32_t block, const Content& content);  // requires an owned, blank block
  void forget(int32_t block);                           // makes an owned block blank

  Block& at(int32_t block) { return blocks_[static_cast<size_t>(block)]; }

  const Block& at(int32_t block) const { return blocks_[static_cast<size_t>(block)]; }

  bool holds(int32_t block, const Content& content) const;
  size_t bucket_of(uint64_t hash) const { return hash & (buckets_.size() - 1); }
  void unlink(int32_t block);
  void link_behind(int32_t block, int32_t previous);

  PrefixCaching caching_;
  std::vector<Block> blocks_;
  std::vector<int32_t> tokens_;   // [total, kKvBlockTokens] what each block holds
  std::vector<int32_t> buckets_;  // heads of lists by hash; a power of two of them
  int32_t first_ = -1;            // of the free blocks: taken from here
  int32_t last_ = -1;
  int64_t blank_ = 0;
  int64_t cached_ = 0;
  uint64_t last_serial_ = 0;
};

}  // namespace quern
