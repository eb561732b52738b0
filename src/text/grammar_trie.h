// The tokens of a vocabulary as a trie of their bytes, built once for each tokenizer: grammars walk
// it to find which tokens may come next.
#pragma once

#include <bitset>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace quern {

using ByteSet = std::bitset<256>;

// What a trie is built from, for vocabularies that are no Tokenizer. Tokens without bytes are
// holes.
struct TokenTrieSource {
  std::vector<std::string> tokens;  // by id: the bytes that a token adds to a text
  std::vector<int32_t> eos_ids;
  std::vector<std::pair<std::string, int32_t>> special;  // written name, id; never text
};

// Immutable: any number of threads may use one at once.
class TokenTrie {
 public:
  // In preorder: the children of node n start at n + 1, and each subtree is one range of nodes and
  // one range of tokens.
  struct Node {
    uint32_t subtree_end;  // the first node behind this subtree
    uint32_t first_token;  // index into the sorted tokens of those that end here
    uint32_t own_tokens;   // how many end here: several ids may share their bytes
    uint32_t tokens_end;   // behind the last token of this subtree
    uint8_t byte;
  };

  // Special tokens and those that end a text are left out of the trie.
  static std::shared_ptr<const TokenTrie> build(const Tokenizer& tokenizer);
  static std::shared_ptr<const TokenTrie> build(const TokenTrieSource& source);

  // One more than the largest id.
  int32_t vocabulary_size() const { return vocabulary_size_; }

  // nodes()[0] is the root, the empty text.
  const std::vector<Node>& nodes() const { return nodes_; }

  // Tokens in the order of their bytes.
  uint32_t token_count() const { return static_cast<uint32_t>(ids_.size()); }
  int32_t id(uint32_t sorted) const { return ids_[sorted]; }
  std::string_view bytes(uint32_t sorted) const {
    return std::string_view(text_).substr(offsets_[sorted],
                                          offsets_[sorted + 1] - offsets_[sorted]);
  }

  // The bytes of a token by its id; empty for holes, special tokens and ids outside.
  std::string_view token_bytes(int32_t id) const;

  // The bytes that are tokens by themselves: what a grammar may always say one byte at a time.
  const ByteSet& single_bytes() const { return single_bytes_; }

  // The tokens that end a text, each within the vocabulary.
  const std::vector<int32_t>& eos_ids() const { return eos_ids_; }
  bool is_eos(int32_t id) const;

  // The special token written `name`.
  std::optional<int32_t> special_id(std::string_view name) const;

 private:
  TokenTrie() = default;
  void sort_tokens(const TokenTrieSource& source);
  void build_nodes();

  int32_t vocabulary_size_ = 0;
  std::string text_;               // the bytes of the sorted tokens, one after the other
  std::vector<uint32_t> offsets_;  // into text_, one more than tokens
  std::vector<int32_t> ids_;
  std::vector<int32_t> sorted_of_id_;  // -1: not in the trie
  std::vector<Node> nodes_;
  ByteSet single_bytes_;
  std::vector<int32_t> eos_ids_;
  std::vector<std::pair<std::string, int32_t>> special_;  // sorted by name
};

}  // namespace quern
