#include "engine/block_manager.h"

#include <algorithm>

namespace quern {

BlockTable::BlockTable(BlockManager& manager, int64_t capacity) : manager_(&manager) {
  ids_.reserve(static_cast<size_t>(capacity));
}

bool BlockTable::cover(int64_t tokens) {
  const int64_t wanted = blocks_for(tokens);
  QUERN_CHECK(wanted <= static_cast<int64_t>(ids_.capacity()));
  if (wanted - size() > manager_->free()) return false;
  while (size() < wanted) ids_.push_back(manager_->take());
  return true;
}

void BlockTable::release() {
  for (; !ids_.empty(); ids_.pop_back()) manager_->give(ids_.back());
}

BlockManager::BlockManager(int64_t total) : owned_(static_cast<size_t>(total), 0) {
  free_.reserve(owned_.size());
  for (int64_t block = total - 1; block >= 0; --block) {
    free_.push_back(static_cast<int32_t>(block));
  }
}

bool BlockManager::consistent() const {
  std::vector<uint8_t> seen = owned_;
  for (const int32_t block : free_) {
    if (block < 0 || block >= total() || seen[static_cast<size_t>(block)] != 0) return false;
    seen[static_cast<size_t>(block)] = 1;
  }
  return std::all_of(seen.begin(), seen.end(), [](uint8_t mark) { return mark == 1; });
}

int32_t BlockManager::take() {
  QUERN_CHECK(!free_.empty());
  const int32_t block = free_.back();
  free_.pop_back();
  owned_[static_cast<size_t>(block)] = 1;
  return block;
}

void BlockManager::give(int32_t block) {
  QUERN_CHECK(owned_[static_cast<size_t>(block)] == 1);
  owned_[static_cast<size_t>(block)] = 0;
  free_.push_back(block);
}

}  // namespace quern
