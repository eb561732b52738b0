// Fuzzes the compilers of regular expressions and of grammars as text ('G' before them): within
// their limits every input compiles or names its mistake, and masks agree with trying each token.
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "base/random.h"
#include "text/grammar.h"
#include "text/unicode.h"

namespace {

using namespace quern;

constexpr int32_t kEnd = 256;

std::shared_ptr<const TokenTrie> make_trie() {
  TokenTrieSource source;
  for (int b = 0; b < 256; ++b) source.tokens.emplace_back(1, static_cast<char>(b));
  source.tokens.emplace_back("</s>");
  source.eos_ids = {kEnd};
  for (const char* token : {"ab", "abc", "aa", "12", "  ", "x.y", "\xC3\xA9", "\xE6\x97"})
    source.tokens.emplace_back(token);
  return TokenTrie::build(source);
}

void answer(const std::shared_ptr<const Grammar>& grammar, uint64_t seed) {
  GrammarMatcher matcher(grammar);
  std::vector<uint32_t> mask(16);
  for (uint64_t step = 0; step < 12 && !matcher.ended(); ++step) {
    matcher.fill_mask(mask);
    std::vector<int32_t> ids;
    for (int32_t id = 0; id < grammar->trie().vocabulary_size(); ++id) {
      const bool allowed = (mask[static_cast<uint32_t>(id) / 32] >> (id % 32) & 1) != 0;
      if (allowed) ids.push_back(id);
      if (id < kEnd && random_bits(seed, 2, step * 1000 + static_cast<uint64_t>(id)) % 8 != 0)
        continue;  // some of the bytes, and every longer token
      GrammarMatcher copy = matcher;
      QUERN_CHECK(copy.accept(id) || !allowed);
    }
    QUERN_CHECK(!ids.empty());
    QUERN_CHECK(matcher.accept(ids[random_bits(seed, 1, step) % ids.size()]));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::shared_ptr<const TokenTrie> trie = make_trie();
  GrammarLimits limits;
  limits.states = 5000;
  limits.steps = 500'000;
  limits.prepare_steps = 0;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const GrammarCompiler compiler(trie, limits);
  const auto grammar =
      input.starts_with('G') ? compiler.ebnf(input.substr(1)) : compiler.regex(input);
  if (!grammar) {
    QUERN_CHECK(is_valid_utf8(grammar.error().message));
    return 0;
  }
  answer(*grammar, size);
  return 0;
}
