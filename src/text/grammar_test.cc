#include "text/grammar.h"

#include <algorithm>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "text/grammar_testing.h"

namespace quern {
namespace {

using ::testing::HasSubstr;

std::shared_ptr<const Grammar> compiled(Result<std::shared_ptr<const Grammar>> result) {
  EXPECT_TRUE(result) << result.error().message;
  return result ? *result : nullptr;
}

std::string message(const Result<std::shared_ptr<const Grammar>>& result) {
  if (result) return "compiled";
  EXPECT_EQ(result.error().code, ErrorCode::kInvalidArgument);
  return result.error().message;
}

TEST(TokenTrie, HoldsEveryTokenOnceInTheOrderOfItsBytes) {
  TokenTrieSource source;
  source.tokens = {"b", "ab", "", "a", "ab", "</s>", "abc", "[X]"};
  source.eos_ids = {5, 99};
  source.special = {{"[X]", 7}};
  const auto trie = TokenTrie::build(source);
  std::vector<int32_t> ids;
  for (uint32_t k = 0; k < trie->token_count(); ++k) ids.push_back(trie->id(k));
  EXPECT_EQ(ids, (std::vector<int32_t>{3, 1, 4, 6, 0}));
  ASSERT_EQ(trie->nodes().size(), 5u);  // "", a, ab, abc, b
  EXPECT_EQ(trie->nodes()[2].own_tokens, 2u);
  EXPECT_EQ(trie->nodes()[1].subtree_end, 4u);
  EXPECT_EQ(trie->nodes()[1].tokens_end, 4u);
  EXPECT_EQ(trie->eos_ids(), std::vector<int32_t>{5}) << "ids outside the vocabulary do not count";
  EXPECT_EQ(trie->special_id("[X]"), 7);
  EXPECT_EQ(trie->special_id("[Y]"), std::nullopt);
  EXPECT_EQ(trie->token_bytes(6), "abc");
  EXPECT_EQ(trie->token_bytes(7), "") << "special tokens are no text";
  EXPECT_EQ(trie->token_bytes(-1), "");
  EXPECT_EQ(trie->single_bytes().count(), 2u);
}

TEST(Grammar, MaskEqualsTryingEveryTokenAllAlongRandomAnswers) {
  const GrammarCompiler compiler = test_compiler();
  const std::vector<std::shared_ptr<const Grammar>> grammars = {
      compiled(compiler.json_object()),
      compiled(compiler.regex("(a|ab)(c|bcd)*x{0,90}|\\d+\\.\\d{2,}")),
      compiled(compiler.json_schema(
          R"({"type":"object","properties":{"name":{"type":"string","maxLength":50},
              "n":{"type":"number"},"tags":{"type":"array","items":{"enum":["a","ab","abc"]}},
              "next":{"anyOf":[{"$ref":"#"},{"type":"null"},{"type":"string"}]}},
              "required":["name","next"]})")),
      compiled(
          compiler.ebnf("root ::= item (\", \" item)*\n"
                        "item ::= \"{\" root? \"}\" | \"[\" root \"]\" | [a-c]+ | \"\\\"\" .")),
  };
  Random random(7);
  for (const auto& grammar : grammars) {
    ASSERT_TRUE(grammar);
    for (int answer = 0; answer < 6; ++answer) {
      GrammarMatcher matcher(grammar);
      for (int step = 0; step < 40 && !matcher.ended(); ++step) {
        const std::vector<uint32_t> mask = mask_of(matcher);
        for (int32_t id = 0; id < test_trie()->vocabulary_size(); ++id) {
          GrammarMatcher copy = matcher;
          ASSERT_EQ(allowed(mask, id), copy.accept(id)) << "token " << written(id);
        }
        const std::vector<int32_t> ids = allowed_ids(mask);
        ASSERT_FALSE(ids.empty());
        ASSERT_TRUE(matcher.accept(ids[random.below(ids.size())]));
      }
    }
  }
}

TEST(Grammar, AllowsTheEndExactlyWhereTheAnswerMayEnd) {
  const auto grammar = compiled(test_compiler().regex("a+"));
  GrammarMatcher matcher(grammar);
  EXPECT_FALSE(allowed(mask_of(matcher), kTestEos));
  EXPECT_FALSE(matcher.accept(kTestEos));
  ASSERT_TRUE(matcher.accept('a'));
  EXPECT_TRUE(allowed(mask_of(matcher), kTestEos));
  EXPECT_FALSE(matcher.ended()) << "it may go on";
  ASSERT_TRUE(matcher.accept(kTestEos));
  EXPECT_TRUE(matcher.ended());
  EXPECT_EQ(allowed_ids(mask_of(matcher)), std::vector<int32_t>{kTestEos});
  EXPECT_FALSE(matcher.accept('a'));
}

TEST(Grammar, IsEndedWhenNothingCanFollow) {
  const auto constraint = make_constraint(compiled(test_compiler().regex("ab?")));
  EXPECT_FALSE(constraint->ended());
  constraint->accept('a');
  EXPECT_FALSE(constraint->ended());
  constraint->accept('b');
  EXPECT_TRUE(constraint->ended());
  std::vector<uint32_t> mask(16);
  constraint->fill_mask(mask);
  EXPECT_EQ(allowed_ids(mask), std::vector<int32_t>{kTestEos});
}

TEST(Grammar, LeavesTheMaskBeyondTheVocabularyEmpty) {
  GrammarMatcher matcher(compiled(test_compiler().json_object()));
  std::vector<uint32_t> mask(64, 0xFFFFFFFF);
  matcher.fill_mask(mask);
  for (const int32_t id : allowed_ids(mask)) EXPECT_LT(id, test_trie()->vocabulary_size());
}

TEST(Grammar, CopiesOfAMatcherGoTheirOwnWays) {
  GrammarMatcher one(compiled(test_compiler().regex("ab|cd")));
  GrammarMatcher two = one;
  ASSERT_TRUE(one.accept('a'));
  ASSERT_TRUE(two.accept('c'));
  EXPECT_TRUE(one.accept('b'));
  EXPECT_FALSE(two.accept('b'));
  EXPECT_TRUE(two.accept('d'));
}

TEST(Grammar, SaysOnlyWhatTheVocabularyCanSpell) {
  TokenTrieSource source;
  source.tokens = {"a", "b", "xy", "</s>"};
  source.eos_ids = {3};
  const GrammarCompiler compiler(TokenTrie::build(source));
  GrammarMatcher matcher(compiled(compiler.regex("a(xc|b)")));
  ASSERT_TRUE(matcher.accept(0));
  std::vector<uint32_t> mask(1);
  matcher.fill_mask(mask);
  EXPECT_EQ(mask[0], 0b0010u) << "no token spells x, so no answer may get stuck behind one";
  EXPECT_THAT(message(compiler.regex("xc")), HasSubstr("matches no text"));
}

TEST(Grammar, RefusesAVocabularyWithoutAnEnd) {
  TokenTrieSource source;
  source.tokens = {"a"};
  EXPECT_THAT(message(GrammarCompiler(TokenTrie::build(source)).regex("a")),
              HasSubstr("names no token that ends a text"));
}

TEST(Grammar, SharesItsMasksBetweenThreads) {
  GrammarLimits limits;
  limits.prepare_steps = 0;
  const auto grammar = compiled(test_compiler(limits).json_object());
  std::vector<std::vector<std::vector<uint32_t>>> seen(4);
  std::vector<std::thread> threads;
  for (auto& masks : seen) {
    threads.emplace_back([&] {
      GrammarMatcher matcher(grammar);
      for (const char c : std::string_view(R"({"a":[1,{"b":"c"}]})")) {
        masks.push_back(mask_of(matcher));
        matcher.accept(static_cast<uint8_t>(c));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& masks : seen) EXPECT_EQ(masks, seen[0]);
}

TEST(Grammar, WorksWithoutRoomForMasks) {
  GrammarLimits limits;
  limits.mask_bytes = 0;
  const auto grammar = compiled(test_compiler(limits).regex("[a-c]{2}"));
  const auto roomy = compiled(test_compiler().regex("[a-c]{2}"));
  GrammarMatcher matcher(grammar);
  GrammarMatcher other(roomy);
  EXPECT_EQ(mask_of(matcher), mask_of(other));
  EXPECT_EQ(grammar->mask_bytes(), 0u);
  EXPECT_GT(roomy->mask_bytes(), 0u);
}

// Every reading of the start counts, and the readings dropped beyond the limit never leave an
// answer without a way on.
TEST(Grammar, SurvivesMoreReadingsThanItKeeps) {
  const auto grammar = compiled(test_compiler().ebnf(
      "root ::= a\na ::= \"x\" a \"y\" | \"x\" a \"z\" | \"x\" a a \"w\" | \"x\" b \"y\" | \"x\"\n"
      "b ::= \"x\" b \"z\" | \"x\" a \"y\" | \"x\""));
  GrammarMatcher matcher(grammar);
  Random random(3);
  for (int step = 0; step < 60 && !matcher.ended(); ++step) {
    const std::vector<int32_t> ids = allowed_ids(mask_of(matcher));
    ASSERT_FALSE(ids.empty());
    const int32_t id = step < 30 ? int32_t{'x'} : ids[random.below(ids.size())];
    ASSERT_TRUE(matcher.accept(id)) << step;
  }
}

TEST(Grammar, RefusesSourcesAndAutomataBeyondTheLimits) {
  const GrammarCompiler compiler = test_compiler();
  EXPECT_THAT(message(compiler.regex(std::string(70'000, 'a'))), HasSubstr("at most 65536"));
  EXPECT_THAT(message(compiler.regex("(a{1000}){1000}")), HasSubstr("more states than the limit"));
  EXPECT_THAT(message(compiler.regex("(a|b)*a(a|b){24}")), HasSubstr("too complex"));
  EXPECT_THAT(message(compiler.regex("((((a*)*)*)*){99999}")), HasSubstr("too complex"));
  GrammarLimits limits;
  limits.steps = 100;
  EXPECT_THAT(message(test_compiler(limits).regex("[ab]{50}")),
              HasSubstr("more steps than the limit"));
  limits = {};
  limits.expressions = 20;
  EXPECT_THAT(message(test_compiler(limits).regex("a[b]c[d]e[f]g[h]i[j]k[l]m[n]o[p]q[r]s[t]")),
              HasSubstr("more than 20 parts"));
  limits = {};
  limits.rules = 2;
  EXPECT_THAT(message(test_compiler(limits).ebnf("root ::= a b\na ::= \"a\"\nb ::= \"b\"")),
              HasSubstr("rules, at most 2"));
}

}  // namespace
}  // namespace quern
