#include "load/sse_parser.h"

#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/random.h"

namespace quern {
namespace {

using Events = std::vector<std::pair<std::string, std::string>>;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;

Events read(const std::vector<std::string_view>& pieces) {
  SseParser parser;
  Events events;
  for (const std::string_view piece : pieces) {
    EXPECT_TRUE(parser.feed(
        piece, [&](const SseEvent& event) { events.emplace_back(event.type, event.data); }));
  }
  return events;
}

Events read(std::string_view text) { return read(std::vector<std::string_view>{text}); }

TEST(SseParser, GivesAnEventAtEachEmptyLine) {
  EXPECT_THAT(read("data: a\n\ndata: b\n\n"),
              ElementsAre(Pair("message", "a"), Pair("message", "b")));
}

TEST(SseParser, JoinsDataWithLineFeeds) {
  EXPECT_THAT(read("data: a\ndata:b\ndata\n\n"), ElementsAre(Pair("message", "a\nb\n")));
}

TEST(SseParser, TakesOneSpaceBehindTheColon) {
  EXPECT_THAT(read("data:  a \n\n"), ElementsAre(Pair("message", " a ")));
}

TEST(SseParser, NamesTheTypeOfOneEventAlone) {
  EXPECT_THAT(read("event: error\ndata: a\n\ndata: b\n\n"),
              ElementsAre(Pair("error", "a"), Pair("message", "b")));
}

TEST(SseParser, SkipsCommentsAndOtherFields) {
  EXPECT_THAT(read(": ping\nid: 5\nretry: 9\nother: x\ndata: a\n\n: ping\n\n"),
              ElementsAre(Pair("message", "a")));
}

TEST(SseParser, GivesNothingForDataThatNoEmptyLineEnds) {
  EXPECT_THAT(read("data: a"), IsEmpty());
  EXPECT_THAT(read("data: a\n"), IsEmpty());
  EXPECT_THAT(read("event: x\n\n"), IsEmpty());
}

TEST(SseParser, EndsLinesAsEverySystemDoes) {
  for (const char* end : {"\n", "\r", "\r\n"}) {
    const std::string line(end);
    EXPECT_THAT(read("data: a" + line + line + "data: b" + line + line),
                ElementsAre(Pair("message", "a"), Pair("message", "b")));
  }
}

TEST(SseParser, GivesTheEventBeforeTheLineFeedOfItsLastLineCame) {
  EXPECT_THAT(read("data: a\r\n\r"), ElementsAre(Pair("message", "a")));
}

TEST(SseParser, SkipsAByteOrderMarkAtTheStartAlone) {
  EXPECT_THAT(read("\xef\xbb\xbf"
                   "data: a\n\n"),
              ElementsAre(Pair("message", "a")));
  EXPECT_THAT(read("data: a\n\n\xef\xbb\xbf"
                   "data: b\n\n"),
              ElementsAre(Pair("message", "a")));
}

constexpr std::string_view kStream =
    "\xef\xbb\xbf: hi\r\n\r\ndata: {\"a\":\"\xc3\xa4\"}\n\nevent: e\r\rdata: x\rdata:\n\r\n\rdata\n"
    "\ndata: [DONE]\r\n\r\n";

TEST(SseParser, ReadsTheSameAtEverySplitInTwo) {
  const Events whole = read(kStream);
  ASSERT_EQ(whole.size(), 4u);
  for (size_t at = 0; at <= kStream.size(); ++at) {
    EXPECT_EQ(read({kStream.substr(0, at), kStream.substr(at)}), whole) << at;
  }
}

TEST(SseParser, ReadsRandomTextTheSameInAnyPieces) {
  constexpr std::string_view kAlphabet = "da:t \n\r";
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    std::string text = "data: x\n\n";
    for (uint64_t i = 0; i < 40; ++i) {
      const uint64_t bits = random_bits(seed, 0, i);
      text += bits % 5 == 0 ? "data:" : std::string(1, kAlphabet[bits / 5 % kAlphabet.size()]);
    }
    std::vector<std::string_view> pieces;
    for (size_t at = 0; at < text.size();) {
      const size_t count = 1 + random_bits(seed, 1, at) % 6;
      pieces.push_back(std::string_view(text).substr(at, count));
      at += count;
    }
    ASSERT_EQ(read(pieces), read(text)) << "seed " << seed;
  }
}

TEST(SseParser, FailsForEverOnceAnEventIsTooLarge) {
  const auto none = [](const SseEvent&) { FAIL(); };
  SseParser line(8);
  EXPECT_TRUE(line.feed("data: ab", none));
  EXPECT_FALSE(line.feed("c", none));
  EXPECT_FALSE(line.feed("\n\ndata: a\n\n", none));
  SseParser lines(16);
  EXPECT_TRUE(lines.feed("data: abcd\ndata: abcd\n", none));
  EXPECT_FALSE(lines.feed("data: abcd\n", none));
}

}  // namespace
}  // namespace quern
