#include "serve/api_json.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quern {
namespace {

using testing::HasSubstr;

std::string error_of(std::string_view body) {
  const auto parsed = parse_body(body);
  return parsed ? "" : parsed.error().message;
}

std::string nested(int depth) {
  return "{\"a\":" + std::string(static_cast<size_t>(depth - 1), '[') +
         std::string(static_cast<size_t>(depth - 1), ']') + "}";
}

TEST(ApiJson, KeepsTheOrderOfKeysAndEveryValue) {
  const std::string body =
      R"({"z":1,"a":[true,null,-2.5,"é\ud83d\ude00"],"m":{"x":{},"b":18446744073709551615}})";
  const auto parsed = parse_body(body);
  ASSERT_TRUE(parsed) << parsed.error().message;
  EXPECT_EQ(dump(*parsed),
            "{\"z\":1,\"a\":[true,null,-2.5,\"é😀\"],\"m\":{\"x\":{},\"b\":18446744073709551615}}");
}

TEST(ApiJson, RefusesWhatIsNoJsonObject) {
  for (const char* body : {"",
                           " ",
                           "{",
                           "{\"a\":}",
                           "{'a':1}",
                           "{\"a\":1}x",
                           "{\"a\":1,}",
                           "[1,]",
                           "nul",
                           "{\"a\":NaN}",
                           "{\"a\":Infinity}",
                           "{\"a\":1e400}",
                           "{\"a\":-1e400}",
                           "{\"a\":01}",
                           "{\"a\":\"\x01\"}",
                           "{\"a\":\"\\x41\"}",
                           "// c\n{}",
                           "\xef\xbb\xbf",
                           "{\"a\":\"\xff\"}",
                           "{\"a\":\"\xc0\xaf\"}",
                           "{\"a\":\"\xed\xa0\x80\"}",
                           "{\"a\":\"\\ud800\"}",
                           "{\"a\":\"\\udc00\"}",
                           "{\"a\":\"\\ud800\\u0041\"}"}) {
    EXPECT_THAT(error_of(body), HasSubstr("is not valid JSON")) << body;
  }
  for (const char* body : {"[]", "1", "\"text\"", "null", "true"}) {
    EXPECT_THAT(error_of(body), HasSubstr("it must be a JSON object")) << body;
  }
}

TEST(ApiJson, ErrorsAreValidUtf8) {
  const auto parsed = parse_body("{\"a\":\"\xff\xfe");
  ASSERT_FALSE(parsed);
  EXPECT_EQ(dump(OrderedJson(parsed.error().message)).find("\xef\xbf\xbd"), std::string::npos);
}

TEST(ApiJson, RefusesAKeyGivenTwice) {
  EXPECT_THAT(error_of(R"({"n":1,"n":2})"), HasSubstr("the key \"n\" twice"));
  EXPECT_THAT(error_of(R"({"a":[{"b":1,"c":2,"b":3}]})"), HasSubstr("the key \"b\" twice"));
  EXPECT_EQ(error_of(R"({"a":{"b":1},"c":{"b":1}})"), "");
}

TEST(ApiJson, RefusesDeepNesting) {
  EXPECT_EQ(error_of(nested(kMaxBodyDepth)), "");
  EXPECT_THAT(error_of(nested(kMaxBodyDepth + 1)), HasSubstr("nested deeper than 64 levels"));
  EXPECT_THAT(error_of(std::string(1000000, '[')), HasSubstr("nested deeper"));
  std::string objects;
  for (int i = 0; i < 10000; ++i) objects += "{\"a\":";
  EXPECT_THAT(error_of(objects), HasSubstr("nested deeper"));
}

TEST(ApiJson, RefusesTooManyValues) {
  std::string body = "{\"a\":[0";
  for (int64_t i = 0; i < kMaxBodyValues; ++i) body += ",0";
  EXPECT_THAT(error_of(body + "]}"), HasSubstr("more than 1048576 values"));
}

// Objects of many keys cost no more than their bytes: a search for each key would take minutes.
TEST(ApiJson, ReadsManyKeysInLinearTime) {
  std::string body = "{\"k\":0";
  for (int i = 0; i < 300000; ++i) body += ",\"k" + std::to_string(i) + "\":0";
  const auto parsed = parse_body(body + "}");
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->size(), 300001u);
}

TEST(ApiJson, WritesInvalidBytesAsReplacementCharacters) {
  EXPECT_EQ(dump(OrderedJson("a\xff"
                             "b")),
            "\"a\xef\xbf\xbd"
            "b\"");
}

TEST(ApiJson, CutsLongValuesBetweenCodePoints) {
  std::string text;
  for (int i = 0; i < 100; ++i) text += "é";
  const std::string cut = shown(OrderedJson(text));
  EXPECT_LE(cut.size(), 83u);
  EXPECT_EQ(dump(OrderedJson(cut)).find("\xef\xbf\xbd"), std::string::npos);
  EXPECT_TRUE(cut.ends_with("..."));
}

TEST(ApiJson, FindsMembersThatAreNotNull) {
  const OrderedJson json = {{"a", 1}, {"b", nullptr}, {"t", true}, {"f", 2.0}};
  EXPECT_EQ(*find(json, "a"), 1);
  EXPECT_EQ(find(json, "b"), nullptr);
  EXPECT_EQ(find(json, "c"), nullptr);
  EXPECT_TRUE(is_true(json, "t"));
  EXPECT_FALSE(is_true(json, "a"));
  EXPECT_EQ(integer_or(json, "f", 7), 2);
  EXPECT_EQ(integer_or(json, "b", 7), 7);
  EXPECT_EQ(number_or(json, "a", 0), 1.0);
  EXPECT_EQ(text_or(json, "c", "x"), "x");
}

}  // namespace
}  // namespace quern
