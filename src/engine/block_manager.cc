#include "engine/block_manager.h"

#include <algorithm>
#include <bit>

#include "base/random.h"

namespace quern {
namespace {

constexpr int32_t kNone = -1;

std::span<const int32_t> block_tokens(std::span<const int32_t> tokens, int64_t index) {
  return tokens.subspan(static_cast<size_t>(index * kKvBlockTokens), kKvBlockTokens);
}

}  // namespace

BlockTable::BlockTable(BlockManager& manager, int64_t capacity, uint64_t salt)
    : manager_(&manager), salt_(salt) {
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
  full_ = 0;
  end_ = {};
}

void BlockTable::publish(std::span<const int32_t> tokens, int64_t computed) {
  if (manager_->caching_ == PrefixCaching::kOff) return;
  for (; (full_ + 1) * kKvBlockTokens <= computed; ++full_) {
    const BlockManager::Content content{end_, salt_, block_tokens(tokens, full_)};
    const std::optional<int32_t> same = manager_->find(content);
    if (same) {
      share(full_, *same);
    } else {
      manager_->publish(ids_[static_cast<size_t>(full_)], content);
    }
    end_ = manager_->at(ids_[static_cast<size_t>(full_)]).link;
  }
}

int64_t BlockTable::adopt(std::span<const int32_t> tokens, int64_t limit) {
  for (; (full_ + 1) * kKvBlockTokens <= limit; ++full_) {
    const std::optional<int32_t> next = manager_->find({end_, salt_, block_tokens(tokens, full_)});
    if (!next) break;
    share(full_, *next);
    end_ = manager_->at(*next).link;
  }
  return full_ * kKvBlockTokens;
}

int64_t BlockTable::count_in_use(std::span<const int32_t> tokens, int64_t limit) const {
  int64_t count = 0;
  BlockLink end = end_;
  for (int64_t i = full_; (i + 1) * kKvBlockTokens <= limit; ++i) {
    const std::optional<int32_t> next = manager_->find({end, salt_, block_tokens(tokens, i)});
    if (!next) break;
    end = manager_->at(*next).link;
    if (manager_->at(*next).references > 0) ++count;
  }
  return count;
}

void BlockTable::retract() {
  for (int64_t i = 0; i < full_; ++i) manager_->forget(ids_[static_cast<size_t>(i)]);
}

// Puts `block` at `index`, in the place of the table's own if it has one there.
void BlockTable::share(int64_t index, int32_t block) {
  manager_->share(block);
  if (index == size()) {
    ids_.push_back(block);
  } else {
    manager_->give(std::exchange(ids_[static_cast<size_t>(index)], block));
  }
}

BlockManager::BlockManager(int64_t total, PrefixCaching caching)
    : caching_(caching),
      blocks_(static_cast<size_t>(total)),
      tokens_(static_cast<size_t>(total) * kKvBlockTokens),
      buckets_(std::bit_ceil(2 * static_cast<size_t>(total)), kNone) {
  for (int32_t block = 0; block < static_cast<int32_t>(total); ++block) link_behind(block, last_);
  blank_ = total;
}

int64_t BlockManager::references() const {
  int64_t count = 0;
  for (const Block& block : blocks_) count += block.references;
  return count;
}

bool BlockManager::consistent() const {
  int64_t blank = 0, cached = 0, owned = 0;
  int32_t previous = kNone;
  for (int32_t block = first_; block != kNone; previous = block, block = at(block).next) {
    if (at(block).references != 0 || at(block).previous != previous) return false;
    ++(at(block).link.serial == 0 ? blank : cached);
    if (blank + cached > total()) return false;  // the list bites its tail
  }
  int64_t with_prefix = 0, findable = 0;
  for (const Block& block : blocks_) {
    if (block.references < 0) return false;
    if (block.references > 0) ++owned;
    if (block.link.serial != 0) ++with_prefix;
  }
  for (const int32_t head : buckets_) {
    for (int32_t block = head; block != kNone; block = at(block).next_in_bucket) {
      if (at(block).link.serial == 0 || ++findable > total()) return false;
    }
  }
  return previous == last_ && blank == blank_ && cached == cached_ && findable == with_prefix &&
         blank + cached + owned == total();
}

int32_t BlockManager::take() {
  QUERN_CHECK(first_ != kNone);
  const int32_t block = first_;
  share(block);
  forget(block);
  return block;
}

void BlockManager::share(int32_t block) {
  if (at(block).references++ > 0) return;
  unlink(block);
  --(at(block).link.serial == 0 ? blank_ : cached_);
}

void BlockManager::give(int32_t block) {
  QUERN_CHECK(at(block).references > 0);
  if (--at(block).references > 0) return;
  const bool is_blank = at(block).link.serial == 0;
  link_behind(block, is_blank ? kNone : last_);
  ++(is_blank ? blank_ : cached_);
}

std::optional<int32_t> BlockManager::find(const Content& content) const {
  if (caching_ == PrefixCaching::kOff) return std::nullopt;
  int32_t block = buckets_[bucket_of(content.hash())];
  while (block != kNone && !holds(block, content)) block = at(block).next_in_bucket;
  if (block != kNone) return block;
  return std::nullopt;
}

bool BlockManager::holds(int32_t block, const Content& content) const {
  const auto begin = tokens_.begin() + static_cast<ptrdiff_t>(block) * kKvBlockTokens;
  return at(block).parent == content.parent.serial && at(block).salt == content.salt &&
         std::equal(content.tokens.begin(), content.tokens.end(), begin);
}

void BlockManager::publish(int32_t block, const Content& content) {
  Block& entry = at(block);
  QUERN_CHECK(entry.references > 0 && entry.link.serial == 0);
  entry.link = {content.hash(), ++last_serial_};
  entry.parent = content.parent.serial;
  entry.salt = content.salt;
  std::copy(content.tokens.begin(), content.tokens.end(),
            tokens_.begin() + static_cast<ptrdiff_t>(block) * kKvBlockTokens);
  int32_t& head = buckets_[bucket_of(entry.link.hash)];
  entry.next_in_bucket = std::exchange(head, block);
}

void BlockManager::forget(int32_t block) {
  Block& entry = at(block);
  QUERN_CHECK(entry.references > 0);
  if (entry.link.serial == 0) return;
  int32_t* link = &buckets_[bucket_of(entry.link.hash)];
  while (*link != block) link = &at(*link).next_in_bucket;
  *link = entry.next_in_bucket;
  entry.link = {};
}

void BlockManager::unlink(int32_t block) {
  const Block& entry = at(block);
  (entry.previous == kNone ? first_ : at(entry.previous).next) = entry.next;
  (entry.next == kNone ? last_ : at(entry.next).previous) = entry.previous;
}

// Puts a block into the list of free ones behind `previous`; kNone: to the front.
void BlockManager::link_behind(int32_t block, int32_t previous) {
  Block& entry = at(block);
  entry.previous = previous;
  entry.next = previous == kNone ? first_ : at(previous).next;
  (previous == kNone ? first_ : at(previous).next) = block;
  (entry.next == kNone ? last_ : at(entry.next).previous) = block;
}

// A chain begins with the salt.
uint64_t BlockManager::Content::hash() const {
  uint64_t hash = parent.serial == 0 ? mix64(salt) : parent.hash;
  for (const int32_t token : tokens) hash = mix64(hash ^ static_cast<uint64_t>(token));
  return hash;
}

}  // namespace quern
