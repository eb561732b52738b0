#include "text/pretokenizer_expression.h"

#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quern {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

std::vector<std::pair<size_t, size_t>> matches(std::string_view pattern, std::string_view text) {
  const auto expression = PretokenizerExpression::compile(pattern, "test");
  EXPECT_TRUE(expression) << expression.error().message;
  std::vector<std::pair<size_t, size_t>> found;
  if (!expression) return found;
  expression->for_each_match(text,
                             [&](size_t begin, size_t end) { found.emplace_back(begin, end); });
  return found;
}

std::string error_of(std::string_view pattern) {
  const auto expression = PretokenizerExpression::compile(pattern, "file field");
  EXPECT_FALSE(expression) << pattern;
  return expression ? "" : expression.error().message;
}

TEST(PretokenizerExpression, FindsMatchesFromLeftToRight) {
  EXPECT_THAT(matches("a+", "aabca"), ElementsAre(Pair(0, 2), Pair(4, 5)));
  EXPECT_THAT(matches("x", "aabca"), IsEmpty());
  EXPECT_THAT(matches("a", ""), IsEmpty());
}

TEST(PretokenizerExpression, StepsOverEmptyMatchesByCodePoint) {
  EXPECT_THAT(matches("x*", "\xC3\xA9x"), ElementsAre(Pair(0, 0), Pair(2, 3)));
}

TEST(PretokenizerExpression, SpaceIsTheUnicodeProperty) {
  EXPECT_THAT(matches("\\s", "\xC2\x85"), ElementsAre(Pair(0, 2)));
  EXPECT_THAT(matches("[\\s]", "\xE3\x80\x80"), ElementsAre(Pair(0, 3)));
  EXPECT_THAT(matches("\\s", "\xE1\xA0\x8E"), IsEmpty()) << "U+180E is no space";
  EXPECT_THAT(matches("\\s", "\xE2\x80\x8B"), IsEmpty()) << "U+200B is no space";
}

TEST(PretokenizerExpression, PlusBehindAnIntervalRepeatsIt) {
  EXPECT_THAT(matches("(?:ab){1,2}+", "abababab"), ElementsAre(Pair(0, 8)));
}

TEST(PretokenizerExpression, TextLongerThanTheJitStackIsMatched) {
  const std::string text(100'000, 'a');
  EXPECT_THAT(matches("(?:a|b)+?$", text), ElementsAre(Pair(0, text.size())));
}

TEST(PretokenizerExpression, StopsAtTheMatchLimit) {
  EXPECT_THAT(matches("(?:a+)+b|^a", "ab" + std::string(40, 'a')), ElementsAre(Pair(0, 2)));
}

TEST(PretokenizerExpression, RefusesWhatHasNoEqual) {
  EXPECT_THAT(error_of("[a[bc]]"), HasSubstr("file field: expression uses a class within a class"));
  EXPECT_THAT(error_of("[a-z&&b]"), HasSubstr("&&"));
  EXPECT_THAT(error_of("[\\W]"), HasSubstr("\\W in a class"));
  EXPECT_THAT(error_of("(?m:a)"), HasSubstr("a group that opens otherwise"));
  EXPECT_THAT(error_of("(?R)"), HasSubstr("a group that opens otherwise"));
  EXPECT_THAT(error_of("(*FAIL)"), HasSubstr("(*"));
  EXPECT_THAT(error_of("\\Qa\\E"), HasSubstr("\\Q"));
  EXPECT_THAT(error_of("\\K"), HasSubstr("\\K"));
  EXPECT_THAT(error_of("a\\"), HasSubstr("backslash at its end"));
  EXPECT_THAT(error_of("\\pL"), HasSubstr("\\p without {name}"));
  EXPECT_THAT(error_of("\\u12"), HasSubstr("\\u without"));
  EXPECT_THAT(error_of("\\u12xy"), HasSubstr("\\u without"));
  EXPECT_THAT(error_of("\\xzz"), HasSubstr("\\x without"));
  EXPECT_THAT(error_of("\\x{41"), HasSubstr("\\x{ without }"));
  EXPECT_THAT(error_of("[abc"), HasSubstr("[ without ]"));
}

TEST(PretokenizerExpression, RefusesWhatDoesNotCompile) {
  EXPECT_THAT(error_of("a)"), HasSubstr("file field: expression does not compile"));
  EXPECT_THAT(error_of("(a"), HasSubstr("does not compile"));
  EXPECT_THAT(error_of("\\p{Nonsense}"), HasSubstr("does not compile"));
  EXPECT_THAT(error_of(std::string(kMaxExpressionBytes + 1, 'a')), HasSubstr("at most 16384"));
}

}  // namespace
}  // namespace quern
