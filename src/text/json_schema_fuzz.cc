// Fuzzes the compiler of JSON schemas: within its limits every input compiles or names its mistake,
// and what a compiled grammar says is JSON, also when it must come to its end.
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "base/random.h"
#include "text/chat_template.h"
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
  for (const char* token : {"\":", "\",", "{\"", "}}", "]}", "ab", "12", "\\u", "null", ", \""})
    source.tokens.emplace_back(token);
  return TokenTrie::build(source);
}

constexpr int64_t kMostTokens = 200;

int32_t pick(const std::vector<uint32_t>& mask, uint64_t dice) {
  std::vector<int32_t> ids;
  for (int32_t id = 0; id < static_cast<int32_t>(mask.size() * 32); ++id) {
    if ((mask[static_cast<uint32_t>(id) / 32] >> (id % 32) & 1) != 0) ids.push_back(id);
  }
  QUERN_CHECK(!ids.empty());
  return ids[dice % ids.size()];
}

void answer(const std::shared_ptr<const Grammar>& grammar, uint64_t seed) {
  GrammarMatcher matcher(grammar);
  std::string text;
  std::vector<uint32_t> mask(16);
  const bool suffices = matcher.distance() <= kMostTokens;
  for (int64_t left = kMostTokens; left > 0 && !matcher.ended(); --left) {
    const uint64_t dice = random_bits(seed, 1, static_cast<uint64_t>(left));
    matcher.fill_mask(mask);
    int32_t id = pick(mask, dice);
    if (suffices && matcher.distance_behind(id) >= left) {
      matcher.fill_closing_mask(mask);
      id = pick(mask, dice);
    }
    QUERN_CHECK(matcher.accept(id));
    text += grammar->trie().token_bytes(id);
  }
  QUERN_CHECK(matcher.may_end() == (suffices || matcher.ended()));
  if (suffices) QUERN_CHECK(OrderedJson::accept(text));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::shared_ptr<const TokenTrie> trie = make_trie();
  GrammarLimits limits;
  limits.states = 5000;
  limits.steps = 500'000;
  limits.prepare_steps = 0;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const auto grammar = GrammarCompiler(trie, limits).json_schema(input);
  if (!grammar) {
    QUERN_CHECK(is_valid_utf8(grammar.error().message));
    return 0;
  }
  answer(*grammar, size);
  return 0;
}
