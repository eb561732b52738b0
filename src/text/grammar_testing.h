// What the tests of grammars share: a small vocabulary, whole texts against a grammar, random
// answers.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"
#include "text/grammar.h"

namespace quern {

class Random {
 public:
  explicit Random(uint64_t seed) : seed_(seed) {}

  // Uniform below `end`, which is not 0.
  size_t below(size_t end) { return random_bits(seed_, 0, position_++) % end; }

 private:
  uint64_t seed_;
  uint64_t position_ = 0;
};

inline constexpr int32_t kTestEos = 256;
inline constexpr int32_t kTestSpecials = 257;  // the first of the markers below
inline constexpr std::string_view kTestMarkers[] = {"[TOOL_CALLS]", "[ARGS]",        "<|channel|>",
                                                    "<|message|>",  "<|constrain|>", "<|end|>",
                                                    "<|start|>"};

// Ids 0 to 255 are the bytes, then come the end of the text, the special markers, a hole, and
// longer tokens that lie across every border of JSON.
inline TokenTrieSource test_vocabulary() {
  TokenTrieSource source;
  for (int b = 0; b < 256; ++b) source.tokens.emplace_back(1, static_cast<char>(b));
  source.eos_ids = {kTestEos};
  source.tokens.emplace_back("</s>");
  for (const std::string_view marker : kTestMarkers) {
    source.special.emplace_back(marker, static_cast<int32_t>(source.tokens.size()));
    source.tokens.emplace_back();
  }
  source.tokens.emplace_back();
  for (const char* token : {"{\"",
                            "\"}",
                            "\":",
                            "\": ",
                            "\",",
                            "\", \"",
                            "}}",
                            "]}",
                            "}]",
                            "[[",
                            "]]",
                            "[]",
                            "{}",
                            "[{",
                            "},",
                            "}, ",
                            "],",
                            "true",
                            "false",
                            "null",
                            "name",
                            "a",
                            "ab",
                            "abc",
                            "\"a",
                            "\"b\"",
                            "12",
                            "345",
                            "0.",
                            ".5",
                            "-1",
                            "e+",
                            "1e",
                            "\xC3\xA9",
                            "\xE6\x97",
                            "\xA5",
                            "\xF0\x9F\x98\x80",
                            "\\n",
                            "\\u",
                            "\\u00",
                            "\\\"",
                            "\\ud8",
                            "  ",
                            "\n\n",
                            ", ",
                            "nul",
                            "tr",
                            "-",
                            "2024-",
                            "T12:",
                            "@example.",
                            "}\n",
                            "<tool_call>",
                            "</tool_call>",
                            "\"name\": \"",
                            "\", \"arguments\": {"}) {
    source.tokens.emplace_back(token);
  }
  source.tokens.emplace_back(40, 'x');  // beyond the horizon of masks
  source.tokens.emplace_back(std::string(39, 'x') + "\"");
  return source;
}

inline std::shared_ptr<const TokenTrie> test_trie() {
  static const std::shared_ptr<const TokenTrie> trie = TokenTrie::build(test_vocabulary());
  return trie;
}

inline GrammarCompiler test_compiler(GrammarLimits limits = {}) {
  return GrammarCompiler(test_trie(), limits);
}

// Whether the text, told one byte at a time, is a whole answer.
inline bool says(const std::shared_ptr<const Grammar>& grammar, std::string_view text) {
  GrammarMatcher matcher(grammar);
  for (const char c : text) {
    if (!matcher.accept(static_cast<uint8_t>(c))) return false;
  }
  return matcher.may_end();
}

inline bool allowed(const std::vector<uint32_t>& mask, int32_t id) {
  const auto i = static_cast<uint32_t>(id);
  return (mask[i / 32] >> (i % 32) & 1) != 0;
}

inline std::vector<uint32_t> mask_of(GrammarMatcher& matcher) {
  std::vector<uint32_t> mask((static_cast<size_t>(test_trie()->vocabulary_size()) + 31) / 32,
                             0xFFFFFFFF);
  matcher.fill_mask(mask);
  return mask;
}

inline std::vector<int32_t> allowed_ids(const std::vector<uint32_t>& mask) {
  std::vector<int32_t> ids;
  for (int32_t id = 0; id < static_cast<int32_t>(mask.size() * 32); ++id) {
    if (allowed(mask, id)) ids.push_back(id);
  }
  return ids;
}

inline std::string written(int32_t id) {
  if (id >= kTestSpecials && id < kTestSpecials + static_cast<int32_t>(std::size(kTestMarkers)))
    return std::string(kTestMarkers[id - kTestSpecials]);
  return std::string(test_trie()->token_bytes(id));
}

}  // namespace quern
