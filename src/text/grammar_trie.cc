#include "text/grammar_trie.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"

namespace quern {
namespace {

size_t shared_prefix(std::string_view a, std::string_view b) {
  const size_t most = std::min(a.size(), b.size());
  return static_cast<size_t>(
      std::mismatch(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(most), b.begin()).first -
      a.begin());
}

}  // namespace

std::shared_ptr<const TokenTrie> TokenTrie::build(const Tokenizer& tokenizer) {
  TokenTrieSource source;
  source.eos_ids = tokenizer.eos_ids();
  source.tokens.resize(static_cast<size_t>(tokenizer.vocabulary_size()));
  for (int32_t id = 0; id < tokenizer.vocabulary_size(); ++id) {
    if (tokenizer.is_special(id)) {
      source.special.emplace_back(tokenizer.token(id), id);
    } else {
      source.tokens[static_cast<size_t>(id)] = tokenizer.token_bytes(id);
    }
  }
  return build(source);
}

std::shared_ptr<const TokenTrie> TokenTrie::build(const TokenTrieSource& source) {
  std::shared_ptr<TokenTrie> trie(new TokenTrie);
  trie->vocabulary_size_ = static_cast<int32_t>(source.tokens.size());
  for (const int32_t id : source.eos_ids) {
    if (id >= 0 && id < trie->vocabulary_size_) trie->eos_ids_.push_back(id);
  }
  trie->special_ = source.special;
  std::sort(trie->special_.begin(), trie->special_.end());
  trie->sort_tokens(source);
  trie->build_nodes();
  return trie;
}

void TokenTrie::sort_tokens(const TokenTrieSource& source) {
  std::vector<bool> left_out(source.tokens.size());
  for (const int32_t id : eos_ids_) left_out[static_cast<size_t>(id)] = true;
  for (const auto& [name, id] : special_) {
    if (id >= 0 && id < vocabulary_size_) left_out[static_cast<size_t>(id)] = true;
  }
  for (int32_t id = 0; id < vocabulary_size_; ++id) {
    const auto i = static_cast<size_t>(id);
    if (!left_out[i] && !source.tokens[i].empty()) ids_.push_back(id);
  }
  const auto bytes_of = [&](int32_t id) -> const std::string& {
    return source.tokens[static_cast<size_t>(id)];
  };
  std::sort(ids_.begin(), ids_.end(), [&](int32_t a, int32_t b) {
    const int order = bytes_of(a).compare(bytes_of(b));
    return order != 0 ? order < 0 : a < b;
  });
  sorted_of_id_.assign(source.tokens.size(), -1);
  for (size_t k = 0; k < ids_.size(); ++k) {
    const std::string& bytes = bytes_of(ids_[k]);
    sorted_of_id_[static_cast<size_t>(ids_[k])] = static_cast<int32_t>(k);
    offsets_.push_back(static_cast<uint32_t>(text_.size()));
    text_ += bytes;
    if (bytes.size() == 1) single_bytes_.set(static_cast<uint8_t>(bytes[0]));
  }
  QUERN_CHECK(text_.size() <= UINT32_MAX);
  offsets_.push_back(static_cast<uint32_t>(text_.size()));
}

void TokenTrie::build_nodes() {
  nodes_.push_back({0, 0, 0, 0, 0});
  std::vector<size_t> path = {0};  // nodes from the root to the last token
  std::string_view last;
  const auto close_below = [&](size_t depth, uint32_t tokens_end) {
    while (path.size() > depth + 1) {
      nodes_[path.back()].subtree_end = static_cast<uint32_t>(nodes_.size());
      nodes_[path.back()].tokens_end = tokens_end;
      path.pop_back();
    }
  };
  for (uint32_t k = 0; k < token_count(); ++k) {
    const std::string_view token = bytes(k);
    close_below(shared_prefix(last, token), k);
    for (size_t depth = path.size() - 1; depth < token.size(); ++depth) {
      path.push_back(nodes_.size());
      nodes_.push_back({0, k, 0, 0, static_cast<uint8_t>(token[depth])});
    }
    ++nodes_[path.back()].own_tokens;
    last = token;
  }
  close_below(0, token_count());
  nodes_[0].subtree_end = static_cast<uint32_t>(nodes_.size());
  nodes_[0].tokens_end = token_count();
}

std::string_view TokenTrie::token_bytes(int32_t id) const {
  if (id < 0 || id >= vocabulary_size_) return {};
  const int32_t sorted = sorted_of_id_[static_cast<size_t>(id)];
  return sorted < 0 ? std::string_view() : bytes(static_cast<uint32_t>(sorted));
}

bool TokenTrie::is_eos(int32_t id) const {
  return std::find(eos_ids_.begin(), eos_ids_.end(), id) != eos_ids_.end();
}

std::optional<int32_t> TokenTrie::special_id(std::string_view name) const {
  const auto found = std::lower_bound(
      special_.begin(), special_.end(), name,
      [](const auto& entry, std::string_view wanted) { return entry.first < wanted; });
  if (found == special_.end() || found->first != name) return std::nullopt;
  return found->second;
}

}  // namespace quern
