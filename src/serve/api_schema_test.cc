#include "serve/api_schema.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quern {
namespace {

using testing::HasSubstr;

// "" when the value is right, else the message.
std::string fault(const Schema& schema, const char* value) {
  const auto checked = check(schema, OrderedJson::parse(value));
  return checked ? "" : checked.error().message;
}

std::string param(const Schema& schema, const char* value) {
  const auto checked = check(schema, OrderedJson::parse(value));
  return checked ? "-" : checked.error().param;
}

SchemaMember needed(std::string name, Schema schema) {
  return {std::move(name), std::move(schema), Presence::kRequired};
}

TEST(ApiSchema, IntegersAreNumbersWithoutFractionInRange) {
  const Schema schema = integer_schema(1, 8);
  for (const char* right : {"1", "8", "2.0", "8e0"}) EXPECT_EQ(fault(schema, right), "") << right;
  for (const char* wrong : {"0", "9", "1.5", "\"1\"", "true", "null", "[]", "1e300", "-1"}) {
    EXPECT_THAT(fault(schema, wrong), HasSubstr("an integer in [1, 8]")) << wrong;
  }
  const Schema wide = integer_schema(INT64_MIN, INT64_MAX);
  for (const char* right : {"9223372036854775807", "-9223372036854775808", "0"}) {
    EXPECT_EQ(fault(wide, right), "") << right;
  }
  for (const char* wrong : {"9223372036854775808", "18446744073709551615", "1e19"}) {
    EXPECT_THAT(fault(wide, wrong), HasSubstr("[-9223372036854775808, 9223372036854775807]"));
  }
}

TEST(ApiSchema, NumbersHaveClosedOrHalfOpenRanges) {
  EXPECT_EQ(fault(number_schema(-2, 2), "-2"), "");
  EXPECT_EQ(fault(number_schema(-2, 2), "2.0"), "");
  EXPECT_THAT(fault(number_schema(-2, 2), "2.0001"), HasSubstr("a number in [-2, 2]"));
  EXPECT_EQ(fault(positive_number_schema(1), "1e-300"), "");
  EXPECT_THAT(fault(positive_number_schema(1), "0"), HasSubstr("a number in (0, 1]"));
  EXPECT_THAT(fault(positive_number_schema(1), "false"), HasSubstr("a number"));
}

TEST(ApiSchema, StringsCountCodePoints) {
  const Schema schema = string_schema(1, 2);
  EXPECT_EQ(fault(schema, "\"éé\""), "");
  EXPECT_THAT(fault(schema, "\"\""), HasSubstr("a string of 1 to 2 characters"));
  EXPECT_THAT(fault(schema, "\"abc\""), HasSubstr("a string of 1 to 2 characters"));
  EXPECT_THAT(fault(schema, "3"), HasSubstr("is 3"));
}

TEST(ApiSchema, NamesHaveAnAlphabetAndALength) {
  EXPECT_EQ(fault(name_schema(), "\"get_Weather-2\""), "");
  for (const char* wrong : {"\"\"", "\"a b\"", "\"a.b\"", "\"é\"", "1"}) {
    EXPECT_THAT(fault(name_schema(), wrong), HasSubstr("^[a-zA-Z0-9_-]{1,128}$")) << wrong;
  }
  EXPECT_NE(fault(name_schema(), ("\"" + std::string(129, 'a') + "\"").c_str()), "");
}

TEST(ApiSchema, ConstantsAreListed) {
  const Schema schema = constant_schema({"auto", false, 1});
  for (const char* right : {"\"auto\"", "false", "1", "1.0"}) EXPECT_EQ(fault(schema, right), "");
  for (const char* wrong : {"\"on\"", "true", "0", "null", "[]"}) {
    EXPECT_THAT(fault(schema, wrong), HasSubstr("\"auto\", false or 1")) << wrong;
  }
}

TEST(ApiSchema, ArraysHaveItemsAndLengths) {
  const Schema schema = array_schema(integer_schema(0, 5), 1, 3);
  EXPECT_EQ(fault(schema, "[0,5]"), "");
  EXPECT_THAT(fault(schema, "[]"), HasSubstr("has 0 items; it must be an array of 1 to 3 items"));
  EXPECT_THAT(fault(schema, "[1,1,1,1]"), HasSubstr("has 4 items"));
  EXPECT_EQ(param(schema, "[0,6]"), "[1]");
  EXPECT_THAT(fault(schema, "{}"), HasSubstr("an array"));
}

TEST(ApiSchema, ObjectsHaveNamedMembers) {
  const Schema schema =
      object_schema({needed("role", constant_schema({"user"})), {"n", integer_schema(1, 8)}});
  EXPECT_EQ(fault(schema, R"({"role":"user"})"), "");
  EXPECT_EQ(fault(schema, R"({"role":"user","n":null})"), "");
  EXPECT_EQ(param(schema, R"({"n":1})"), "role");
  EXPECT_EQ(param(schema, R"({"role":null})"), "role");
  EXPECT_EQ(param(schema, R"({"role":"user","n":0})"), "n");
  EXPECT_EQ(param(schema, R"({"role":"user","top":1})"), "top");
  EXPECT_THAT(fault(schema, R"({"role":"user","top":null})"), HasSubstr("top is not a field"));
  EXPECT_EQ(check(schema, OrderedJson::parse(R"({"role":"user","top":1})")).error().code,
            "unknown_parameter");
  EXPECT_EQ(check(schema, OrderedJson::parse("{}")).error().code, "missing_required_parameter");
}

TEST(ApiSchema, MapsHaveRulesForKeysAndValues) {
  Schema schema = map_schema(number_schema(-100, 100), 2);
  schema.names = TextRule::kDigits;
  EXPECT_EQ(fault(schema, R"({"12":1,"0":-100})"), "");
  EXPECT_EQ(param(schema, R"({"12":101})"), "12");
  EXPECT_THAT(fault(schema, R"({"-1":1})"), HasSubstr("does not match ^[0-9]{1,10}$"));
  EXPECT_THAT(fault(schema, R"({"":1})"), HasSubstr("does not match"));
  EXPECT_THAT(fault(schema, R"({"12345678901":1})"), HasSubstr("does not match"));
  EXPECT_THAT(fault(schema, R"({"1":1,"2":1,"3":1})"), HasSubstr("at most 2 are allowed"));
}

TEST(ApiSchema, RefusedMembersGiveTheReason) {
  const Schema schema = object_schema({{"suffix", refused_schema("it is not possible")}});
  EXPECT_EQ(fault(schema, R"({"suffix":null})"), "");
  EXPECT_THAT(fault(schema, R"({"suffix":"x"})"),
              HasSubstr("it must be left out: it is not possible"));
}

TEST(ApiSchema, UnionsReportTheVariantThatTheValueIsMostLike) {
  const Schema text =
      object_schema({needed("type", constant_schema({"text"})), needed("text", string_schema())});
  const Schema image =
      object_schema({needed("type", constant_schema({"image"})), needed("url", string_schema())});
  const Schema schema = union_schema({string_schema(), array_schema(union_schema({text, image}))});
  EXPECT_EQ(fault(schema, "\"x\""), "");
  EXPECT_EQ(fault(schema, R"([{"type":"text","text":"x"},{"type":"image","url":"u"}])"), "");
  EXPECT_EQ(param(schema, R"([{"type":"image","url":1}])"), "[0].url");
  EXPECT_EQ(param(schema, R"([{"type":"text","text":"x"},{"type":"image"}])"), "[1].url");
  EXPECT_THAT(fault(schema, R"([{"type":"audio"}])"),
              HasSubstr("an object with type \"text\" or an object with type \"image\""));
  EXPECT_THAT(fault(schema, "3"), HasSubstr("a string or an array"));
  const Schema shapes = union_schema(
      {object_schema({needed("prompt", string_schema())}),
       object_schema({needed("messages", array_schema(any_schema())), {"n", boolean_schema()}})});
  EXPECT_EQ(param(shapes, R"({"messages":[],"n":3})"), "n");
}

TEST(ApiSchema, LongKeysAreCutInPaths) {
  const std::string body = "{\"" + std::string(100000, 'k') + "\":1}";
  const auto checked = check(object_schema({}), OrderedJson::parse(body));
  ASSERT_FALSE(checked);
  EXPECT_LT(checked.error().message.size(), 200u);
}

TEST(ApiSchema, PrintsJsonSchema) {
  const Schema schema = object_schema({
      needed("n", integer_schema(1, INT64_MAX)),
      {"p", described(positive_number_schema(1), "Share.")},
      {"s", string_schema(1, 4)},
      {"c", constant_schema({"a"})},
      {"u", union_schema({boolean_schema(), array_schema(name_schema(), 0, 2)})},
      {"any", any_schema()},
  });
  EXPECT_EQ(to_json(schema), OrderedJson::parse(R"({
    "type": "object",
    "properties": {
      "n": {"type": "integer", "minimum": 1, "maximum": 9223372036854775807},
      "p": {"description": "Share.", "type": ["number", "null"], "exclusiveMinimum": 0.0,
            "maximum": 1.0},
      "s": {"type": ["string", "null"], "minLength": 1, "maxLength": 4},
      "c": {"enum": ["a", null]},
      "u": {"anyOf": [{"type": "boolean"},
                      {"type": "array",
                       "items": {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,128}$"},
                       "maxItems": 2},
                      {"type": "null"}]},
      "any": {}},
    "required": ["n"],
    "additionalProperties": false})"));
  Schema map = map_schema(null_schema(), 3);
  map.names = TextRule::kDigits;
  EXPECT_EQ(to_json(map), OrderedJson::parse(R"({
    "type": "object", "propertyNames": {"pattern": "^[0-9]{1,10}$"}, "maxProperties": 3,
    "additionalProperties": {"type": "null"}})"));
}

}  // namespace
}  // namespace quern
