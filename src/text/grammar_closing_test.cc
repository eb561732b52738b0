// How near the end of an answer is, and answers that end within a number of tokens.
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "text/grammar_testing.h"

namespace quern {
namespace {

using Grammars = std::vector<std::shared_ptr<const Grammar>>;

const Grammars& grammars() {
  static const Grammars all = [] {
    const GrammarCompiler compiler = test_compiler();
    Grammars out;
    const auto add = [&](const Result<std::shared_ptr<const Grammar>>& grammar) {
      ASSERT_TRUE(grammar) << grammar.error().message;
      out.push_back(*grammar);
    };
    add(compiler.json_object());
    add(compiler.regex("(a|ab)(c|bcd)*x{3,90}|\\d+\\.\\d{2,}|[a-z]{20}"));
    add(compiler.json_schema(
        R"({"type":"object","properties":{"name":{"type":"string","minLength":3,"maxLength":50},
            "n":{"type":"number","minimum":120},"tags":{"type":"array","minItems":2,
            "items":{"enum":["a","abc"]}},"next":{"anyOf":[{"$ref":"#"},{"const":"the last"}]}},
            "required":["name","n","next"],"additionalProperties":false})"));
    add(
        compiler.ebnf("root ::= item (\", \" item)*\n"
                      "item ::= \"{\" root? \"}\" | \"[\" root \"]\" | [a-c]+ | \"\\\"\" ."));
    add(
        compiler.ebnf("root ::= twice twice\ntwice ::= four four\nfour ::= pair pair | \"aaaaaa\"\n"
                      "pair ::= \"(\" root \")\" | \"ab\"\n"));
    const char* place = R"({"type":"object","properties":{"city":{"type":"string"}},
                            "required":["city"]})";
    for (const ToolDialect dialect :
         {ToolDialect::kLlama3, ToolDialect::kHermes, ToolDialect::kMistral}) {
      add(compiler.tool_calls(
          {dialect, {{"get_weather", place}, {"now", ""}}, ParallelCalls::kMany}));
    }
    return out;
  }();
  return all;
}

std::vector<uint32_t> closing_mask_of(GrammarMatcher& matcher) {
  std::vector<uint32_t> mask((static_cast<size_t>(test_trie()->vocabulary_size()) + 31) / 32,
                             0xFFFFFFFF);
  matcher.fill_closing_mask(mask);
  return mask;
}

// A token ends the answer, is special, or says its bytes: so much nearer can it bring the end.
int64_t most_progress(int32_t token) {
  if (token == kTestEos) return 0;
  return std::max<int64_t>(1, static_cast<int64_t>(test_trie()->token_bytes(token).size()));
}

// No token comes nearer than its bytes tell, and one of a byte comes that near.
TEST(GrammarClosing, DistanceFallsByOneAndByNoMore) {
  Random random(3);
  for (const auto& grammar : grammars()) {
    for (int answer = 0; answer < 10; ++answer) {
      GrammarMatcher matcher(grammar);
      for (int step = 0; step < 40 && !matcher.ended(); ++step) {
        const int64_t distance = matcher.distance();
        ASSERT_EQ(distance == 0, matcher.may_end());
        const std::vector<int32_t> ids = allowed_ids(mask_of(matcher));
        bool nearer = false;
        for (const int32_t id : ids) {
          const int64_t behind = matcher.distance_behind(id);
          ASSERT_GE(behind, distance - most_progress(id)) << written(id);
          nearer = nearer || (most_progress(id) == 1 && behind == distance - 1);
        }
        ASSERT_TRUE(nearer || distance == 0);
        const int32_t id = ids[random.below(ids.size())];
        const int64_t behind = matcher.distance_behind(id);
        ASSERT_TRUE(matcher.accept(id));
        ASSERT_EQ(matcher.distance(), behind) << "asking changed nothing";
      }
    }
  }
}

TEST(GrammarClosing, MaskHoldsTokensEveryByteOfWhichComesNearer) {
  Random random(4);
  for (const auto& grammar : grammars()) {
    GrammarMatcher matcher(grammar);
    for (int step = 0; step < 40 && !matcher.ended(); ++step) {
      const int64_t distance = matcher.distance();
      const std::vector<uint32_t> mask = mask_of(matcher);
      const std::vector<int32_t> closing = allowed_ids(closing_mask_of(matcher));
      ASSERT_FALSE(closing.empty());
      for (const int32_t id : closing) {
        ASSERT_TRUE(allowed(mask, id)) << written(id);
        ASSERT_EQ(matcher.distance_behind(id), distance - most_progress(id)) << written(id);
      }
      for (const int32_t id : allowed_ids(mask)) {
        if (distance == 0 || matcher.distance_behind(id) > distance - most_progress(id)) continue;
        ASSERT_TRUE(std::binary_search(closing.begin(), closing.end(), id)) << written(id);
      }
      const std::vector<int32_t> ids = allowed_ids(mask);
      ASSERT_TRUE(matcher.accept(ids[random.below(ids.size())]));
    }
  }
}

TEST(GrammarClosing, EndsWithinAnyNumberOfTokensThatSuffices) {
  Random random(5);
  for (const auto& grammar : grammars()) {
    const int64_t least = GrammarMatcher(grammar).distance();
    for (int64_t budget = least; budget < least + 60; ++budget) {
      GrammarMatcher matcher(grammar);
      std::string text;
      for (int64_t left = budget; left > 0 && !matcher.ended(); --left) {
        std::vector<int32_t> ids = allowed_ids(mask_of(matcher));
        int32_t id = ids[random.below(ids.size())];
        if (matcher.distance_behind(id) >= left) {
          ids = allowed_ids(closing_mask_of(matcher));
          id = ids[random.below(ids.size())];
        }
        ASSERT_TRUE(matcher.accept(id));
        text += written(id);
      }
      ASSERT_TRUE(matcher.may_end()) << text;
    }
  }
}

TEST(GrammarClosing, CountsNoFurtherThanFar) {
  std::string text = "root ::= r0\n";
  for (int i = 0; i < 40; ++i)
    text += "r" + std::to_string(i) + " ::= r" + std::to_string(i + 1) + " r" +
            std::to_string(i + 1) + "\n";
  text += "r40 ::= \"ab\" | \"(\" root \")\"\n";
  const auto grammar = test_compiler().ebnf(text);
  ASSERT_TRUE(grammar) << grammar.error().message;
  GrammarMatcher matcher(*grammar);
  EXPECT_EQ(matcher.distance(), kGrammarFar);
  EXPECT_EQ(closing_mask_of(matcher), mask_of(matcher));
}

}  // namespace
}  // namespace quern
