#include "text/vocabulary.h"

#include <bit>
#include <functional>

#include <fmt/format.h>

namespace quern {

Result<Unit> Vocabulary::add(int64_t id, std::string_view token) {
  if (id < 0 || id >= kMaxVocabularyIds) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("token id {} is outside [0, {})", id, kMaxVocabularyIds)};
  }
  if (token.size() > kMaxTokenBytes) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("token {} has {} bytes; at most {} are allowed", id, token.size(),
                             kMaxTokenBytes)};
  }
  const auto at = static_cast<size_t>(id);
  if (at >= entries_.size()) entries_.resize(at + 1);
  if (entries_[at].present)
    return Error{ErrorCode::kInvalidArgument, fmt::format("token id {} is given twice", id)};
  entries_[at] = {text_.size(), static_cast<uint32_t>(token.size()), true};
  text_ += token;
  return Unit{};
}

void Vocabulary::index() {
  slots_.assign(std::bit_ceil(entries_.size() * 2 + 1), -1);
  const size_t mask = slots_.size() - 1;
  for (int32_t id = 0; id < size(); ++id) {
    if (!has(id)) continue;
    const std::string_view added = token(id);
    size_t slot = std::hash<std::string_view>{}(added)&mask;
    while (slots_[slot] >= 0 && token(slots_[slot]) != added) slot = (slot + 1) & mask;
    if (slots_[slot] < 0) slots_[slot] = id;
  }
}

std::string_view Vocabulary::token(int32_t id) const {
  if (!has(id)) return {};
  const Entry& entry = entries_[index_of(id)];
  return std::string_view(text_).substr(entry.offset, entry.bytes);
}

std::optional<int32_t> Vocabulary::find(std::string_view token_text) const {
  if (slots_.empty()) return std::nullopt;
  const size_t mask = slots_.size() - 1;
  size_t slot = std::hash<std::string_view>{}(token_text)&mask;
  while (slots_[slot] >= 0) {
    if (token(slots_[slot]) == token_text) return slots_[slot];
    slot = (slot + 1) & mask;
  }
  return std::nullopt;
}

}  // namespace quern
