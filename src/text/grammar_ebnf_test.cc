#include "text/grammar_ebnf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "text/grammar_testing.h"

namespace quern {
namespace {

using ::testing::HasSubstr;

bool says(std::string_view grammar, std::string_view text) {
  const auto compiled = test_compiler().ebnf(grammar);
  EXPECT_TRUE(compiled) << compiled.error().message;
  return compiled && quern::says(*compiled, text);
}

std::string refusal(std::string_view grammar) {
  const auto compiled = test_compiler().ebnf(grammar);
  return compiled ? "compiled" : compiled.error().message;
}

TEST(GrammarEbnf, FollowsRules) {
  const char* sums =
      "# sums of numbers\n"
      "root   ::= number\n"
      "         | \"(\" root (\" + \" | \" - \") root \")\"  # two of them\n"
      "number ::= \"-\"? [1-9] [0-9]* (\".\" [0-9]{1,2})? \"e\"{0} \"!\"{0,2} \"\"\n";
  EXPECT_TRUE(says(sums, "12.50"));
  EXPECT_TRUE(says(sums, "(-1 + (2 - 30))"));
  EXPECT_TRUE(says(sums, "7"));
  EXPECT_FALSE(says(sums, "(1 + 2"));
  EXPECT_FALSE(says(sums, "1.234"));
  EXPECT_FALSE(says(sums, "0"));
}

TEST(GrammarEbnf, KnowsEscapesAndAnyCharacter) {
  EXPECT_TRUE(says("root ::= \"\\\"\\\\\\n\\x41\\u00e9\\u{1F600}\" . [^\\]a]",
                   "\"\\\nA\xC3\xA9\xF0\x9F\x98\x80\nb"));
  EXPECT_FALSE(says("root ::= .", "\xC3"));
}

TEST(GrammarEbnf, AllowsRightRecursionWithoutGrowingStacks) {
  const auto grammar = test_compiler().ebnf("root ::= \"a\" root | \"b\"");
  ASSERT_TRUE(grammar);
  EXPECT_TRUE(quern::says(*grammar, std::string(10'000, 'a') + "b"));
}

TEST(GrammarEbnf, MatchesNestedPairs) {
  const char* pairs = "root ::= \"\" | \"(\" root \")\" root";
  EXPECT_TRUE(says(pairs, "(()())()"));
  EXPECT_FALSE(says(pairs, "(()"));
  EXPECT_FALSE(says(pairs, "())"));
}

TEST(GrammarEbnf, NamesTheLineOfAMistake) {
  EXPECT_EQ(refusal("root ::= a\n\na ::= \"x"), "grammar: line 3: text without its closing quote");
  EXPECT_THAT(refusal(""), HasSubstr("rule `root` is missing"));
  EXPECT_EQ(refusal("root ::= \"a\"\n  nope"), "grammar: line 2: rule `nope` is missing");
  EXPECT_THAT(refusal("root ::= \"a\"\nroot ::= \"b\""), HasSubstr("a rule given twice"));
  EXPECT_THAT(refusal("root = \"a\""), HasSubstr("expected a rule"));
  EXPECT_THAT(refusal("root ::= (\"a\""), HasSubstr("a group without `)`"));
  EXPECT_THAT(refusal("root ::= \"a\")"), HasSubstr("`)` without a group"));
  EXPECT_THAT(refusal("root ::= [a"), HasSubstr("a class without `]`"));
  EXPECT_THAT(refusal("root ::= \"\\q\""), HasSubstr("the escape `\\q`"));
  EXPECT_THAT(refusal("root ::= \"a\\"), HasSubstr("`\\` at the end"));
  EXPECT_THAT(refusal("root ::= \"a\"{x}"), HasSubstr("expected a number"));
  EXPECT_THAT(refusal("root ::= \"a\"{1"), HasSubstr("`{` without `}`"));
  EXPECT_THAT(refusal("root ::= \"a\"{2,1}"), HasSubstr("most is below its least"));
  EXPECT_THAT(refusal("root ::= \"a\"{1000000}"), HasSubstr("a repeat count above"));
  EXPECT_THAT(refusal("root ::= @"), HasSubstr("expected text in quotes"));
  EXPECT_THAT(refusal("root ::= \"\xFF\""), HasSubstr("not valid UTF-8"));
  EXPECT_THAT(refusal("root ::= " + std::string(200, '(')), HasSubstr("nested too deeply"));
}

TEST(GrammarEbnf, RefusesRulesThatBeginWithThemselves) {
  EXPECT_THAT(refusal("root ::= root \"a\" | \"b\""), HasSubstr("rule `root`: is left-recursive"));
  EXPECT_THAT(refusal("root ::= a\na ::= b? c\nb ::= \"b\"\nc ::= a \"c\" | \"d\""),
              HasSubstr("left-recursive"));
  EXPECT_THAT(refusal("root ::= e root \"x\" | \"y\"\ne ::= \"e\" e \"f\" |"),
              HasSubstr("left-recursive"))
      << "behind a rule that may say nothing";
}

TEST(GrammarEbnf, RefusesRulesThatNeverEnd) {
  EXPECT_THAT(refusal("root ::= \"a\" root"), HasSubstr("matches no text"));
  EXPECT_EQ(refusal("root ::= \"a\" | \"b\" never\nnever ::= \"n\" never"), "compiled")
      << "what never ends is left out";
  EXPECT_FALSE(says("root ::= \"a\" | \"b\" never\nnever ::= \"n\" never", "b"));
}

}  // namespace
}  // namespace quern
