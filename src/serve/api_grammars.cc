#include "serve/api_grammars.h"

#include <algorithm>

namespace quern {

std::shared_ptr<const TokenTrie> GrammarCache::trie(const Tokenizer& tokenizer) {
  const std::lock_guard lock(mutex_);
  if (!trie_) trie_ = TokenTrie::build(tokenizer);
  return trie_;
}

Result<std::shared_ptr<const Grammar>> GrammarCache::get(const Tokenizer& tokenizer,
                                                         const std::string& key,
                                                         const Compile& compile) {
  if (std::shared_ptr<const Grammar> known = find(key)) return known;
  GrammarLimits limits;
  limits.mask_bytes = kMaxMaskBytes;
  const GrammarCompiler compiler(trie(tokenizer), limits);
  std::shared_ptr<const Grammar> grammar = QUERN_TRY(compile(compiler));
  keep(key, grammar);
  return grammar;
}

size_t GrammarCache::size() const {
  const std::lock_guard lock(mutex_);
  return entries_.size();
}

std::shared_ptr<const Grammar> GrammarCache::find(const std::string& key) {
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const Entry& entry) { return entry.key == key; });
  if (found == entries_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, found);
  return found->grammar;
}

void GrammarCache::keep(const std::string& key, std::shared_ptr<const Grammar> grammar) {
  const std::lock_guard lock(mutex_);
  entries_.push_front({key, std::move(grammar)});
  if (entries_.size() > kMaxGrammars) entries_.pop_back();
}

}  // namespace quern
