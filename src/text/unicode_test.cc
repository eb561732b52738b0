#include "text/unicode.h"

#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"

namespace quern {
namespace {

TEST(Unicode, ReplacesEachMaximalInvalidPart) {
  EXPECT_EQ(replace_invalid_utf8("a\xFFz"), "a\uFFFDz");
  EXPECT_EQ(replace_invalid_utf8("\xE4\xB8"), "\uFFFD");
  EXPECT_EQ(replace_invalid_utf8("\xE4\xB8x"), "\uFFFDx");
  EXPECT_EQ(replace_invalid_utf8("\xF0\x9F\x98\xF0\x9F\x98\x80"), "\uFFFD\U0001F600");
  EXPECT_EQ(replace_invalid_utf8("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD") << "a surrogate";
  EXPECT_EQ(replace_invalid_utf8("\xC0\xAF"), "\uFFFD\uFFFD") << "an overlong form";
  EXPECT_EQ(replace_invalid_utf8("\xF4\x90\x80\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(replace_invalid_utf8("h\u00E9\u4E2D\U0001F600"), "h\u00E9\u4E2D\U0001F600");
}

TEST(Unicode, KnowsAnIncompleteEnd) {
  EXPECT_EQ(first_utf8_part("\xF0\x9F\x98").status, Utf8Status::kIncomplete);
  EXPECT_EQ(first_utf8_part("\xF0\x9F\x98").bytes, 3u);
  EXPECT_EQ(first_utf8_part("\xF0\x9F\x98\x80").status, Utf8Status::kComplete);
  EXPECT_EQ(first_utf8_part("\xF0\x8F").status, Utf8Status::kInvalid);
  EXPECT_FALSE(is_valid_utf8("a\xE4\xB8"));
  EXPECT_TRUE(is_valid_utf8(""));
}

TEST(Unicode, DecodesWhatItEncodes) {
  for (char32_t c = 1; c < 0x110000; c += c < 0x3000 ? 1 : 251) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    append_code_point(c, text);
    ASSERT_TRUE(is_valid_utf8(text));
    EXPECT_EQ(decode_code_point(text).value, c);
    EXPECT_EQ(decode_code_point(text).bytes, text.size());
    EXPECT_EQ(decode_last_code_point("a" + text).value, c);
  }
}

TEST(Unicode, ReplacedTextIsValidWhateverTheBytes) {
  constexpr uint64_t kSeed = 11;
  for (uint64_t round = 0; round < 2000; ++round) {
    std::string bytes;
    for (uint64_t i = 0; i < 8; ++i) {
      constexpr std::string_view kLikely = "a\x80\xBF\xC3\xE4\xED\xF0\xF4\xFF\x9F";
      bytes += kLikely[random_bits(kSeed, round, i) % kLikely.size()];
    }
    const std::string text = replace_invalid_utf8(bytes);
    EXPECT_TRUE(is_valid_utf8(text)) << "seed " << kSeed << " round " << round;
    EXPECT_EQ(is_valid_utf8(bytes), text == bytes);
  }
}

TEST(Unicode, OrdersLongRunsOfMarks) {
  std::string marks = "a";
  for (int i = 0; i < 100'000; ++i) marks += i % 2 == 0 ? "\u0301" : "\u0323";  // 230, 220
  const std::string ordered = normalize_unicode(marks, NormalForm::kNfd);
  ASSERT_EQ(ordered.size(), marks.size());
  EXPECT_EQ(ordered.substr(1, 4), "\u0323\u0323");
  EXPECT_EQ(ordered.substr(ordered.size() - 4), "\u0301\u0301");
}

TEST(Unicode, LowersTheDottedCapitalI) { EXPECT_EQ(lowercase_unicode("\u0130I"), "i\u0307i"); }

}  // namespace
}  // namespace quern
