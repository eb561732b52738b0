#include "engine/stop_matcher.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"

namespace quern {
namespace {

struct Outcome {
  std::string text;
  std::string stop;
  bool operator==(const Outcome&) const = default;
};

Outcome feed(const std::vector<std::string>& stops, const std::vector<std::string>& pieces) {
  StopMatcher matcher(stops);
  Outcome outcome;
  for (const std::string& piece : pieces) outcome.text += matcher.push(piece);
  outcome.stop = matcher.stopped();
  outcome.text += matcher.finish();
  return outcome;
}

// By definition: the stop whose end comes first, the longest of several that end there.
Outcome expected(const std::vector<std::string>& stops, const std::string& text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    std::string best;
    for (const std::string& stop : stops) {
      const bool ends_here =
          stop.size() <= end && text.compare(end - stop.size(), stop.size(), stop) == 0;
      if (ends_here && stop.size() > best.size()) best = stop;
    }
    if (!best.empty()) return {text.substr(0, end - best.size()), best};
  }
  return {text, ""};
}

TEST(StopMatcher, EndsTheTextBeforeTheStopString) {
  EXPECT_EQ(feed({"END"}, {"the END of it"}), (Outcome{"the ", "END"}));
}

TEST(StopMatcher, HoldsBackOnlyWhatMayBeginAStopString) {
  const std::vector<std::string> stops = {"END"};
  StopMatcher matcher(stops);
  EXPECT_EQ(matcher.push("aE"), "a");
  EXPECT_EQ(matcher.push("N"), "");
  EXPECT_EQ(matcher.push("x"), "ENx");
  EXPECT_EQ(matcher.push("EEN"), "E");
  EXPECT_EQ(matcher.finish(), "EN");
  EXPECT_EQ(matcher.stopped(), "");
}

TEST(StopMatcher, LetsNothingOutAfterTheStop) {
  const std::vector<std::string> stops = {"\n\n"};
  StopMatcher matcher(stops);
  EXPECT_EQ(matcher.push("one\n"), "one");
  EXPECT_EQ(matcher.push("\ntwo"), "");
  EXPECT_EQ(matcher.stopped(), "\n\n");
  EXPECT_EQ(matcher.push("three"), "");
  EXPECT_EQ(matcher.finish(), "");
}

TEST(StopMatcher, FindsAStopThatSpansPiecesAndCodePoints) {
  EXPECT_EQ(feed({"\u00e9t\u00e9"}, {"un ", "\u00e9", "t", "\u00e9", "!"}),
            (Outcome{"un ", "\u00e9t\u00e9"}));
}

TEST(StopMatcher, PassesEverythingWithoutStops) {
  EXPECT_EQ(feed({}, {"a", "", "b"}), (Outcome{"ab", ""}));
}

TEST(StopMatcher, TakesTheStopThatEndsFirstAndTheLongestOfThose) {
  EXPECT_EQ(feed({"bcde", "cd"}, {"abcde"}), (Outcome{"ab", "cd"}));
  EXPECT_EQ(feed({"d", "bcd"}, {"abcde"}), (Outcome{"a", "bcd"}));
}

TEST(StopMatcher, GivesTheSameForEverySplit) {
  constexpr uint64_t kSeed = 11;
  uint64_t draws = 0;
  const auto draw = [&](uint64_t below) { return random_bits(kSeed, 0, draws++) % below; };
  const auto word = [&](uint64_t longest) {
    std::string text;
    for (uint64_t n = 1 + draw(longest); n > 0; --n) text += static_cast<char>('a' + draw(2));
    return text;
  };
  int stopped = 0;
  for (int round = 0; round < 3000; ++round) {
    std::vector<std::string> stops;
    for (uint64_t n = 1 + draw(3); n > 0; --n) stops.push_back(word(6));
    const std::string text = word(14);
    std::vector<std::string> pieces(1);
    for (const char c : text) {
      pieces.back() += c;
      if (draw(2) == 0) pieces.emplace_back();
    }
    const Outcome outcome = feed(stops, pieces);
    ASSERT_EQ(outcome, expected(stops, text)) << "round " << round << ", text " << text;
    if (!outcome.stop.empty()) ++stopped;
  }
  EXPECT_GT(stopped, 500);
  EXPECT_LT(stopped, 2900);
}

TEST(StopMatcher, NeverLetsPartOfTheStopOut) {
  const std::string text = "abcabd";
  const std::vector<std::string> stops = {"abd"};
  for (unsigned cuts = 0; cuts < 32; ++cuts) {  // a bit for each place between two letters
    StopMatcher matcher(stops);
    std::string piece, out;
    for (size_t i = 0; i < text.size(); ++i) {
      piece += text[i];
      if (i + 1 < text.size() && (cuts >> i & 1u) == 0) continue;
      out += matcher.push(piece);
      piece.clear();
      ASSERT_LE(out.size(), 3u) << "cuts " << cuts;
    }
    EXPECT_EQ(out, "abc");
  }
}

}  // namespace
}  // namespace quern
