#include "text/pretokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "text/tokenizer_golden.h"

namespace quern {
namespace {

using ::testing::HasSubstr;

std::vector<std::string> split(const Pretokenizer& pretokenizer, const std::string& text) {
  Words words;
  words.text = text;
  if (!text.empty()) words.ranges = {{0, text.size()}};
  words.first_is_start = true;
  pretokenizer.apply(words);
  std::vector<std::string> out;
  for (const TextRange& range : words.ranges) out.emplace_back(words.word(range));
  return out;
}

std::string error_of(const std::string& json) {
  const auto made =
      Pretokenizer::from_json(Json::parse(json), "t pre_tokenizer", ByteMapping::kInPlace);
  EXPECT_FALSE(made) << json;
  return made ? "" : made.error().message;
}

TEST(Pretokenizer, SplitsAsHuggingFace) {
  const Json golden = golden_json("pretokenizers.json");
  const auto texts = golden["texts"].get<std::vector<std::string>>();
  for (const Json& step : golden["steps"]) {
    SCOPED_TRACE(step["config"].dump());
    const auto made = Pretokenizer::from_json(step["config"], "golden", ByteMapping::kInPlace);
    ASSERT_TRUE(made) << made.error().message;
    for (size_t i = 0; i < texts.size(); ++i) {
      EXPECT_EQ(split(*made, texts[i]), step["expected"][i].get<std::vector<std::string>>())
          << texts[i];
    }
  }
}

TEST(Pretokenizer, DefersTheBytesOfALastByteLevel) {
  const Json step = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  EXPECT_TRUE(*Pretokenizer::ends_with_byte_level(step, "t"));
  EXPECT_FALSE(*Pretokenizer::ends_with_byte_level(nullptr, "t"));
  const auto deferred = Pretokenizer::from_json(step, "t", ByteMapping::kDeferred);
  const auto in_place = Pretokenizer::from_json(step, "t", ByteMapping::kInPlace);
  EXPECT_EQ(split(*deferred, "a \u00E9"), (std::vector<std::string>{"a", " \u00E9"}));
  EXPECT_EQ(split(*in_place, "a \u00E9"), (std::vector<std::string>{"a", "\u0120\u00C3\u00A9"}));
}

TEST(Pretokenizer, RefusesUnknownTypesAndBadFields) {
  EXPECT_THAT(
      error_of(R"({"type": "UnicodeScripts"})"),
      HasSubstr("t pre_tokenizer: type \"UnicodeScripts\" is not known; known are ByteLevel"));
  EXPECT_THAT(error_of(R"({"type": "Sequence", "pretokenizers": 3})"), HasSubstr("pretokenizers"));
  EXPECT_THAT(error_of(R"({"type": "Split", "pattern": {"String": "a"}, "behavior": "Keep"})"),
              HasSubstr("\"behavior\" is \"Keep\"; Removed, Isolated"));
  EXPECT_THAT(error_of(R"({"type": "Split", "pattern": "a", "behavior": "Removed"})"),
              HasSubstr("needs to be {\"String\""));
  EXPECT_THAT(error_of(R"({"type": "Metaspace", "replacement": "ab"})"),
              HasSubstr("\"replacement\" is \"ab\"; one character"));
  EXPECT_THAT(error_of(R"({"type": "Metaspace", "prepend_scheme": "last"})"),
              HasSubstr("\"prepend_scheme\" is \"last\""));
  EXPECT_THAT(error_of(R"({"type": "FixedLength", "length": 0})"), HasSubstr("length"));
  EXPECT_THAT(error_of(R"({"type": "CharDelimiterSplit"})"), HasSubstr("delimiter"));
  EXPECT_THAT(error_of(R"({"type": "ByteLevel", "use_regex": "yes"})"), HasSubstr("use_regex"));
}

}  // namespace
}  // namespace quern
