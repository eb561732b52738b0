// Grammars that requests bring, compiled once for each source while it is in use.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>

#include "base/result.h"
#include "text/grammar.h"
#include "text/tokenizer.h"

namespace quern {

// The grammars of one model. Any number of threads may use it at once; two that ask for the same
// source at the same time may both compile it.
class GrammarCache {
 public:
  // Kept grammars times the masks of one bound the memory: 32 * 8 MiB.
  static constexpr size_t kMaxGrammars = 32;
  static constexpr size_t kMaxMaskBytes = size_t{8} << 20;

  using Compile = std::function<Result<std::shared_ptr<const Grammar>>(const GrammarCompiler&)>;

  // The grammar that `compile` makes, which `key` alone decides. The first call builds the trie of
  // the tokenizer, which is the same in every call. Errors: those of `compile`, which are not kept.
  Result<std::shared_ptr<const Grammar>> get(const Tokenizer& tokenizer,
                                             const std::string& key,
                                             const Compile& compile);

  // The trie of the tokenizer.
  std::shared_ptr<const TokenTrie> trie(const Tokenizer& tokenizer);

  size_t size() const;

 private:
  struct Entry {
    std::string key;
    std::shared_ptr<const Grammar> grammar;
  };

  std::shared_ptr<const Grammar> find(const std::string& key);
  void keep(const std::string& key, std::shared_ptr<const Grammar> grammar);

  mutable std::mutex mutex_;
  std::shared_ptr<const TokenTrie> trie_;
  std::list<Entry> entries_;  // the last used first
};

}  // namespace quern
