// The blocks of the key-value cache: who owns which, by RAII.
#pragma once

#include <cstdint>
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

// The blocks of one sequence in order of position; gives them back when it ends. Move-only.
class BlockTable {
 public:
  // No block yet; memory for `capacity` ids is taken here, so growing takes none. The manager
  // outlives the table.
  BlockTable(BlockManager& manager, int64_t capacity);
  BlockTable(BlockTable&& other) noexcept
      : manager_(other.manager_), ids_(std::exchange(other.ids_, {})) {}
  BlockTable& operator=(BlockTable&&) = delete;
  BlockTable(const BlockTable&) = delete;
  BlockTable& operator=(const BlockTable&) = delete;

  ~BlockTable() { release(); }

  // Grows until `tokens` positions are covered, all or nothing: false when the cache has too few
  // free blocks. Requires tokens within the capacity.
  [[nodiscard]] bool cover(int64_t tokens);

  // Gives every block back, the last first, so that a prefix stays longest.
  void release();

  std::span<const int32_t> ids() const { return ids_; }

  int64_t size() const { return static_cast<int64_t>(ids_.size()); }

 private:
  BlockManager* manager_;
  std::vector<int32_t> ids_;
};

// Hands out block ids [0, total). Owner thread only.
class BlockManager {
 public:
  explicit BlockManager(int64_t total);

  int64_t total() const { return static_cast<int64_t>(owned_.size()); }

  int64_t free() const { return static_cast<int64_t>(free_.size()); }

  // Whether each block is either free, once, or owned: free + owned == total.
  bool consistent() const;

 private:
  friend class BlockTable;
  int32_t take();            // requires free() > 0
  void give(int32_t block);  // requires an owned block

  std::vector<int32_t> free_;  // taken from the back
  std::vector<uint8_t> owned_;
};

}  // namespace quern
