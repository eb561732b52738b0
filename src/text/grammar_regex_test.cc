#include "text/grammar_regex.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "text/grammar_testing.h"

namespace quern {
namespace {

using ::testing::HasSubstr;

bool says(std::string_view expression, std::string_view text) {
  const auto grammar = test_compiler().regex(expression);
  EXPECT_TRUE(grammar) << grammar.error().message;
  return grammar && quern::says(*grammar, text);
}

std::string refusal(std::string_view expression) {
  const auto grammar = test_compiler().regex(expression);
  return grammar ? "compiled" : grammar.error().message;
}

TEST(GrammarRegex, MatchesTheWholeText) {
  EXPECT_TRUE(says("abc", "abc"));
  EXPECT_FALSE(says("abc", "abcd"));
  EXPECT_FALSE(says("abc", "xabc"));
  EXPECT_TRUE(says("^abc$", "abc")) << "anchors at the ends say nothing new";
  EXPECT_TRUE(says("^a|b$", "b"));
  EXPECT_TRUE(says("", ""));
  EXPECT_TRUE(says("a||b", ""));
}

TEST(GrammarRegex, RepeatsGreedyOrLazy) {
  EXPECT_TRUE(says("a*?b+c?d{2}e{1,}f{0,2}", "bddeee"));
  EXPECT_FALSE(says("d{2}", "d"));
  EXPECT_FALSE(says("f{0,2}", "fff"));
  EXPECT_TRUE(says("(?:ab|c)+", "abcab"));
  EXPECT_TRUE(says("(?<year>[0-9]{4})", "2024"));
  EXPECT_TRUE(says("(?P<y>x)", "x"));
  EXPECT_TRUE(says("{a}", "{a}")) << "braces that count nothing are text";
  EXPECT_TRUE(says("a{,2}", "a{,2}"));
}

TEST(GrammarRegex, KnowsClassesAndEscapes) {
  EXPECT_TRUE(says("[a-cx-]+", "ab-x"));
  EXPECT_TRUE(says("[^a-c]", "\xC3\xA9"));
  EXPECT_FALSE(says("[^a-c]", "b"));
  EXPECT_FALSE(says("[^a-c]", "\xC3")) << "never half a code point";
  EXPECT_TRUE(says("[\\d\\-\\]]+", "1-]"));
  EXPECT_TRUE(says("[\\b]", "\b"));
  EXPECT_TRUE(says("\\w\\d\\s\\W\\D\\S", "_1\t!x\xC3\xA9"));
  EXPECT_FALSE(says("\\S", "\xC2\xA0"));
  EXPECT_TRUE(says("\\x41\\u00e9\\u{1F600}\\t\\n\\r\\f\\v\\0\\cA",
                   std::string("A\xC3\xA9\xF0\x9F\x98\x80\t\n\r\f\v\0\x01", 14)));
  EXPECT_TRUE(says("\\.\\*\\(\\/", ".*(/"));
  EXPECT_TRUE(says(".", "\xE6\x97\xA5"));
  EXPECT_FALSE(says(".", "\n"));
  EXPECT_TRUE(says("[\\u0430-\\u044f]+", "\xD0\xB4\xD0\xB0"));
  EXPECT_FALSE(says("[\\u0430-\\u044f]+", "\xD0\x90"));
}

TEST(GrammarRegex, CutsRangesOfCodePointsExactly) {
  // Borders of the lengths of UTF-8, of surrogates, and within each length.
  for (const auto& [low, high] :
       std::initializer_list<std::pair<char32_t, char32_t>>{{0x7E, 0x81},
                                                            {0x7FE, 0x802},
                                                            {0xD7FE, 0xE001},
                                                            {0xFFFE, 0x10002},
                                                            {0x345, 0x1234},
                                                            {0x10FFFE, 0x10FFFF},
                                                            {0x3FFF, 0x4000}}) {
    Expressions out(10'000);
    CodePointSet set;
    set.add(low, high);
    const ExpressionId id = encode_set(set, TextEncoding::kPlain, out);
    AutomatonBudget budget = {1000, 100'000};
    const auto automaton = build_automaton({&out, nullptr, nullptr, ByteSet().set()}, id, budget);
    ASSERT_TRUE(automaton);
    for (char32_t c = low - 2; c <= std::min<char32_t>(high + 2, 0x10FFFF); ++c) {
      if (c >= 0xD800 && c < 0xE000) continue;
      EXPECT_EQ(matches(*automaton, encode_code_point(c, TextEncoding::kPlain)),
                c >= low && c <= high)
          << static_cast<uint32_t>(c);
    }
  }
}

TEST(GrammarRegex, RefusesByNameAndPlace) {
  EXPECT_EQ(refusal("ab(?=c)"), "regex: at byte 5: lookaround is not supported");
  EXPECT_THAT(refusal("(?<!a)"), HasSubstr("lookaround"));
  EXPECT_THAT(refusal("(?i)a"), HasSubstr("flags"));
  EXPECT_THAT(refusal("(?<n"), HasSubstr("name without `>`"));
  EXPECT_THAT(refusal("(a)\\1"), HasSubstr("backreferences"));
  EXPECT_THAT(refusal("\\k<n>"), HasSubstr("backreferences"));
  EXPECT_THAT(refusal("\\bword"), HasSubstr("word boundaries"));
  EXPECT_THAT(refusal("\\p{L}"), HasSubstr("Unicode properties"));
  EXPECT_THAT(refusal("\\Z"), HasSubstr("the escape `\\Z`"));
  EXPECT_THAT(refusal("a^b"), HasSubstr("`^` is supported at the start"));
  EXPECT_THAT(refusal("(a$)"), HasSubstr("`$` is supported at the end"));
  EXPECT_THAT(refusal("a$b"), HasSubstr("`$` is supported at the end"));
  EXPECT_THAT(refusal("(a"), HasSubstr("a group without `)`"));
  EXPECT_THAT(refusal("(?:"), HasSubstr("a group without `)`"));
  EXPECT_THAT(refusal("a)"), HasSubstr("`)` without a group"));
  EXPECT_THAT(refusal("[a"), HasSubstr("a class without `]`"));
  EXPECT_THAT(refusal("[z-a]"), HasSubstr("end lies before its start"));
  EXPECT_THAT(refusal("[\\d-z]"), HasSubstr("a range between classes"));
  EXPECT_THAT(refusal("*a"), HasSubstr("nothing to repeat"));
  EXPECT_THAT(refusal("a**"), HasSubstr("a quantifier behind a quantifier"));
  EXPECT_THAT(refusal("a++"), HasSubstr("possessive"));
  EXPECT_THAT(refusal("a{3,2}"), HasSubstr("most is below its least"));
  EXPECT_THAT(refusal("a{99999999999}"), HasSubstr("a repeat count above"));
  EXPECT_THAT(refusal("\\"), HasSubstr("`\\` at the end"));
  EXPECT_THAT(refusal("\\\xC3\xA9"), HasSubstr("before this character"));
  EXPECT_THAT(refusal("\\x4"), HasSubstr("hexadecimal"));
  EXPECT_THAT(refusal("\\ud83d"), HasSubstr("surrogates"));
  EXPECT_THAT(refusal("\\u{110000}"), HasSubstr("no code point"));
  EXPECT_THAT(refusal("\\u{}"), HasSubstr("one to six digits"));
  EXPECT_THAT(refusal("\\c1"), HasSubstr("a letter behind"));
  EXPECT_THAT(refusal("\\01"), HasSubstr("octal"));
  EXPECT_THAT(refusal("\xFF"), HasSubstr("not valid UTF-8"));
  EXPECT_THAT(refusal(std::string(200, '(')), HasSubstr("nested too deeply"));
}

}  // namespace
}  // namespace quern
