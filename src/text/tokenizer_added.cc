#include "text/tokenizer_added.h"

namespace quern {
namespace {

uint64_t edge_key(uint32_t node, char byte) {
  return uint64_t{node} << 8 | static_cast<uint8_t>(byte);
}

}  // namespace

void AddedTokenMatcher::add(int32_t index, std::string_view content) {
  if (content.empty()) return;
  starts_[static_cast<uint8_t>(content[0])] = true;
  uint32_t node = 0;
  for (const char byte : content) {
    const auto next = static_cast<uint32_t>(nodes_.size());
    const auto [edge, is_new] = edges_.try_emplace(edge_key(node, byte), next);
    if (is_new) nodes_.emplace_back();
    node = edge->second;
  }
  nodes_[node].index = index;
}

AddedTokenMatcher::Match AddedTokenMatcher::find(
    std::string_view text,
    size_t from,
    FunctionRef<bool(int32_t index, size_t begin, size_t end)> allowed) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    if (!starts_[static_cast<uint8_t>(text[begin])]) continue;
    Match longest{-1, begin, begin};
    uint32_t node = 0;
    for (size_t end = begin; end < text.size();) {
      const auto edge = edges_.find(edge_key(node, text[end]));
      if (edge == edges_.end()) break;
      node = edge->second;
      ++end;
      const int32_t index = nodes_[node].index;
      if (index >= 0 && allowed(index, begin, end)) longest = {index, begin, end};
    }
    if (longest.index >= 0) return longest;
  }
  return {-1, text.size(), text.size()};
}

}  // namespace quern
