#include "text/json_schema.h"

#include <cmath>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "text/grammar.h"
#include "text/grammar_testing.h"

namespace quern {
namespace {

using OrderedJson = nlohmann::ordered_json;
using ::testing::HasSubstr;

std::shared_ptr<const Grammar> compiled(std::string_view schema) {
  auto result = test_compiler().json_schema(schema);
  EXPECT_TRUE(result) << result.error().message << " for " << schema;
  return result ? *result : nullptr;
}

std::string refusal(std::string_view schema) {
  const auto result = test_compiler().json_schema(schema);
  if (result) return "compiled";
  EXPECT_EQ(result.error().code, ErrorCode::kInvalidArgument);
  return result.error().message;
}

struct Case {
  const char* name;
  const char* schema;
  std::vector<std::string> says;
  std::vector<std::string> never;
};

class JsonSchemaKeyword : public ::testing::TestWithParam<Case> {};

TEST_P(JsonSchemaKeyword, SaysWhatValidatesAndNothingElse) {
  const auto grammar = compiled(GetParam().schema);
  ASSERT_TRUE(grammar);
  for (const std::string& text : GetParam().says) EXPECT_TRUE(says(grammar, text)) << text;
  for (const std::string& text : GetParam().never) EXPECT_FALSE(says(grammar, text)) << text;
}

const Case kCases[] = {
    {"Boolean", R"({"type":"boolean"})", {"true", "false"}, {"True", "1", "", "null", "tru"}},
    {"Null", R"({"type":"null"})", {"null"}, {"nul", "0"}},
    {"Integer",
     R"({"type":"integer"})",
     {"0", "-0", "7", "-12", "123456789012345678"},
     {"01", "1.0", "1e3", "+1", "-", "", "1234567890123456789"}},
    {"Number",
     R"({"type":"number"})",
     {"0", "-1.5", "2e10", "1.25E-7", "0.0"},
     {".5", "1.", "01", "1e", "NaN", "1e999", "Infinity"}},
    {"String",
     R"({"type":"string"})",
     {R"("")", R"("a b")", R"("\n\"\\\/\u00e9\uD83D\ude00")", "\"\xC3\xA9\xF0\x9F\x98\x80\""},
     {R"(")", R"("a)", "\"\n\"", R"("\x")", R"("\u12")", R"("\ud83d")", R"("\ude00")",
      R"("\ud83dx")", "\"\xC3\"", "\"\xFF\"", "\"\xED\xA0\x80\"", "\"\xC0\x80\"",
      "\"\xF4\x90\x80\x80\"", "\"a\"b"}},
    {"TypeList", R"({"type":["string","null"]})", {"null", R"("x")"}, {"1", "{}"}},
    {"Enum",
     R"({"enum":["a","b c",1,null,{"k":[1,2]},"é\n"]})",
     {R"("a")", R"("b c")", "1", "null", R"({"k":[1,2]})", R"({"k": [1, 2]})", R"("é\n")"},
     {R"("b")", "2", R"({"k":[1]})"}},
    {"EnumOfType",
     R"({"type":["string","integer"],"enum":["a",1,true,1.5]})",
     {R"("a")", "1"},
     {"true", "1.5"}},
    {"Const", R"({"const":"on"})", {R"("on")"}, {R"("off")", R"("o)"}},
    {"ConstInEnum", R"({"enum":[1,2,3],"const":2})", {"2"}, {"1", "3"}},
    {"Properties",
     R"({"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"boolean"}},
         "required":["a"]})",
     {R"({"a":1})", R"({"a": 1, "b": true})", R"({"a":1,"b":false})"},
     {"{}", R"({"b":true})", R"({"b":true,"a":1})", R"({"a":1,})", R"({"a":1,"c":2})",
      R"({"a":  1})", R"({ "a":1})", R"({"a":1 })", R"({"a":1,"a":1})"}},
    {"OptionalProperties",
     R"({"type":"object","properties":{"a":{"const":1},"b":{"const":2},"c":{"const":3}}})",
     {"{}", R"({"a":1})", R"({"b":2})", R"({"c":3})", R"({"a":1,"c":3})", R"({"b":2,"c":3})",
      R"({"a":1,"b":2,"c":3})"},
     {R"({,"b":2})", R"({"b":2,})", R"({"c":3,"a":1})"}},
    {"NoProperties", R"({"type":"object","properties":{}})", {"{}"}, {R"({"a":1})"}},
    {"AnyMembers",
     R"({"type":"object"})",
     {"{}", R"({"a":1,"b":{"c":[null,"x"]}})"},
     {"[]", R"({a:1})", R"({"a"})"}},
    {"AdditionalOfSchema",
     R"({"type":"object","properties":{"a":{"type":"string"}},"additionalProperties":
         {"type":"integer"}})",
     {"{}", R"({"a":"x"})", R"({"a":"x","b":1,"cc":2})", R"({"b":1})", R"({"aa":1})", R"({"":1})"},
     {R"({"a":1})", R"({"b":"x"})", R"({"\u0061":1})", R"({"b":1,"a":"x"})"}},
    {"AdditionalTrue",
     R"({"type":"object","properties":{"a":{"type":"string"}},"additionalProperties":true})",
     {R"({"z":[1]})", R"({"a":"x","z":null})"},
     {R"({"a":1})"}},
    {"RequiredAdditional",
     R"({"type":"object","additionalProperties":{"type":"integer"},"required":["n"]})",
     {R"({"n":1})", R"({"n":1,"m":2})"},
     {"{}", R"({"m":2})"}},
    {"Items",
     R"({"type":"array","items":{"type":"integer"}})",
     {"[]", "[1]", "[1, 2,3]"},
     {"[", "[1,]", "[,1]", R"(["a"])", "[1  ]"}},
    {"AnyItems", R"({"type":"array"})", {"[]", R"([1,"a",[],{}])"}, {"{}"}},
    {"ItemCounts",
     R"({"type":"array","items":{"const":1},"minItems":1,"maxItems":3})",
     {"[1]", "[1,1]", "[1,1,1]"},
     {"[]", "[1,1,1,1]"}},
    {"ManyItems",
     R"({"type":"array","items":{"type":"string"},"minItems":2,"maxItems":40})",
     {R"(["a","b"])", R"(["a","b","c"])"},
     {R"(["a"])"}},
    {"NoItems", R"({"type":"array","maxItems":0})", {"[]"}, {"[1]"}},
    {"PrefixItems",
     R"({"type":"array","prefixItems":[{"const":1},{"const":2},{"const":3}],"minItems":2})",
     {"[1,2]", "[1,2,3]"},
     {"[1]", "[]", "[2,1]", "[1,2,3,4]"}},
    {"PrefixThenItems",
     R"({"type":"array","prefixItems":[{"const":1}],"items":{"const":9},"minItems":2,
         "maxItems":3})",
     {"[1,9]", "[1,9,9]"},
     {"[1]", "[1,9,9,9]", "[9,9]"}},
    {"PrefixCutByMaximum",
     R"({"type":"array","prefixItems":[{"const":1},{"const":2}],"maxItems":1})",
     {"[]", "[1]"},
     {"[1,2]"}},
    {"Length",
     R"({"type":"string","minLength":2,"maxLength":3})",
     {R"("ab")", R"("a\n")", "\"\xE6\x97\xA5\xC3\xA9x\"", R"("\"\\")"},
     {R"("a")", R"("abcd")", R"("a\u0062")"}},
    {"Pattern",
     R"({"type":"string","pattern":"^[a-c]+\"?$"})",
     {R"("abc")", R"("a\"")"},
     {R"("")", R"("d")", R"("a"")"}},
    {"PatternWithin",
     R"({"type":"string","pattern":"b+"})",
     {R"("b")", R"("abba")", R"("\nb")"},
     {R"("a")", R"("")"}},
    {"PatternBranches", R"({"pattern":"^a|b$"})", {R"("ax")", R"("xb")"}, {R"("xa")", R"("bx")"}},
    {"PatternAndLength",
     R"({"type":"string","pattern":"^(ab)*$","minLength":3,"maxLength":5})",
     {R"("abab")"},
     {R"("ab")", R"("ababab")"}},
    {"Date",
     R"({"type":"string","format":"date"})",
     {R"("2024-02-29")", R"("2023-12-31")", R"("2000-02-29")"},
     {R"("2023-02-29")", R"("1900-02-29")", R"("2024-13-01")", R"("2024-04-31")", R"("24-01-01")"}},
    {"Time",
     R"({"type":"string","format":"time"})",
     {R"("12:34:56Z")", R"("00:00:00.5+05:30")"},
     {R"("24:00:00Z")", R"("12:34:56")"}},
    {"DateTime",
     R"({"type":"string","format":"date-time"})",
     {R"("2024-01-31T23:59:59.123Z")"},
     {R"("2024-01-31 23:59:59Z")", R"("2024-01-31")"}},
    {"Uuid",
     R"({"type":"string","format":"uuid"})",
     {R"("123e4567-e89b-12d3-a456-426614174000")"},
     {R"("123e4567e89b12d3a456426614174000")"}},
    {"Ipv4",
     R"({"type":"string","format":"ipv4"})",
     {R"("192.168.0.255")"},
     {R"("256.1.1.1")", R"("1.2.3")", R"("01.2.3.4")"}},
    {"Email",
     R"({"type":"string","format":"email"})",
     {R"("a.b+c@example.org")"},
     {R"("a@b")", R"("@example.org")", R"("a b@example.org")"}},
    {"OtherFormat", R"({"type":"string","format":"uri"})", {R"("anything")"}, {"1"}},
    {"IntegerBounds",
     R"({"type":"integer","minimum":-12,"exclusiveMaximum":120})",
     {"-12", "-9", "-1", "0", "9", "99", "119"},
     {"-13", "-20", "120", "200", "1000"}},
    {"IntegerFractionBounds",
     R"({"type":"integer","minimum":1.5,"maximum":3.5})",
     {"2", "3"},
     {"1", "4"}},
    {"IntegerAtLeast",
     R"({"type":"integer","minimum":10})",
     {"10", "99", "100", "12345"},
     {"9", "-10", "010"}},
    {"IntegerAtMost",
     R"({"type":"integer","maximum":-5})",
     {"-5", "-10", "-999"},
     {"-4", "0", "5"}},
    {"NumberBounds",
     R"({"type":"number","minimum":-1.5,"maximum":2.25})",
     {"-1.5", "-1.49", "-0.3", "0", "2", "2.25", "2.2", "2.250", "1.999"},
     {"-1.51", "-2", "2.26", "2.251", "3", "1e0"}},
    {"NumberExclusive",
     R"({"type":"number","exclusiveMinimum":0,"exclusiveMaximum":1})",
     {"0.5", "0.001", "0.999"},
     {"0", "1", "0.0", "-0.5", "1.0", "-0"}},
    {"NumberAtLeast", R"({"minimum":9.5})", {"9.5", "9.51", "10", "100.25"}, {"9.4", "9", "-10"}},
    {"NumberWithinOne",
     R"({"type":"number","minimum":3.2,"maximum":3.4})",
     {"3.2", "3.3", "3.39"},
     {"3", "3.1", "3.41", "3.5"}},
    {"AnyOf",
     R"({"anyOf":[{"type":"integer"},{"type":"object","properties":{"a":{"const":1}},
                 "required":["a"]},{"type":"object","properties":{"b":{"const":2}},
                 "required":["b"]}]})",
     {"5", R"({"a":1})", R"({"b":2})"},
     {"{}", R"({"a":2})", R"("x")"}},
    {"AnyOfBesideProperties",
     R"({"type":"object","properties":{"a":{"const":1},"b":{"const":2}},
         "anyOf":[{"required":["a"]},{"required":["b"]}]})",
     {R"({"a":1})", R"({"b":2})", R"({"a":1,"b":2})"},
     {"{}"}},
    {"OneOfTypes",
     R"({"oneOf":[{"type":"string"},{"type":"integer"}]})",
     {R"("a")", "1"},
     {"null"}},
    {"OneOfConstants",
     R"({"oneOf":[{"type":"object","properties":{"t":{"const":"a"},"x":{"type":"integer"}},
         "required":["t"]},{"type":"object","properties":{"t":{"const":"b"}},"required":["t"]}]})",
     {R"({"t":"a","x":1})", R"({"t":"b"})"},
     {R"({"t":"b","x":1})", R"({"t":"c"})"}},
    {"AllOf",
     R"({"allOf":[{"type":"object","properties":{"a":{"type":"integer","minimum":1}},
         "required":["a"]},{"properties":{"a":{"maximum":3},"b":{"const":1}},"required":["b"]}]})",
     {R"({"a":1,"b":1})", R"({"a":3,"b":1})"},
     {R"({"a":4,"b":1})", R"({"a":0,"b":1})", R"({"a":1})"}},
    {"AllOfScalars",
     R"({"allOf":[{"type":["string","number"]},{"type":["integer","null"]},{"minimum":2},
         {"minimum":5}]})",
     {"5", "6"},
     {"4", "5.5", "null", R"("a")"}},
    {"AllOfPatterns",
     R"({"type":"string","allOf":[{"pattern":"^a"},{"pattern":"b$"}]})",
     {R"("ab")", R"("acb")"},
     {R"("a")", R"("b")", R"("ba")"}},
    {"Reference",
     R"({"type":"object","properties":{"x":{"$ref":"#/$defs/p"},"y":{"$ref":"#/$defs/a~1b"}},
         "required":["x","y"],"$defs":{"p":{"type":"object","properties":{"n":{"type":"integer"}},
         "required":["n"]},"a/b":{"enum":["u"]}}})",
     {R"({"x":{"n":1},"y":"u"})"},
     {R"({"x":{},"y":"u"})", R"({"x":{"n":1},"y":"v"})"}},
    {"ReferenceWithSiblings",
     R"({"$ref":"#/definitions/n","maximum":5,"definitions":{"n":{"type":"integer","minimum":3}}})",
     {"3", "5"},
     {"2", "6"}},
    {"Recursion",
     R"({"$ref":"#/$defs/tree","$defs":{"tree":{"type":"object","properties":{"v":
         {"type":"integer"},"kids":{"type":"array","items":{"$ref":"#/$defs/tree"}}},
         "required":["v","kids"]}}})",
     {R"({"v":1,"kids":[]})", R"({"v":1,"kids":[{"v":2,"kids":[{"v":3,"kids":[]}]}]})"},
     {R"({"v":1,"kids":[{}]})", R"({"v":1,"kids":[)"}},
    {"RootReference",
     R"({"type":"object","properties":{"next":{"anyOf":[{"$ref":"#"},{"type":"null"}]}},
         "required":["next"]})",
     {R"({"next":null})", R"({"next":{"next":null}})"},
     {R"({"next":{}})"}},
    {"True", "true", {"1", "[]", R"({"a":null})"}, {"", "tru"}},
    {"Empty", R"({"title":"anything","x-order":1})", {"1", "[]"}, {"x"}},
    {"Annotations",
     R"({"type":"integer","title":"t","description":"d","default":1,"examples":[1],
         "$schema":"https://json-schema.org/draft/2020-12/schema","$id":"x","deprecated":true,
         "uniqueItems":false,"minProperties":0})",
     {"1"},
     {"a"}},
    {"FalseProperty",
     R"({"type":"object","properties":{"a":{"const":1},"b":false}})",
     {"{}", R"({"a":1})"},
     {R"({"b":1})"}},
    {"HugeMaximum", R"({"type":"string","maxLength":2147483647})", {R"("abc")"}, {"1"}},
};

INSTANTIATE_TEST_SUITE_P(All, JsonSchemaKeyword, ::testing::ValuesIn(kCases), [](const auto& test) {
  return std::string(test.param.name);
});

TEST(JsonSchema, RefusesWhatItDoesNotSupportByNameAndPlace) {
  for (const char* keyword : {"not", "if", "then", "else", "patternProperties", "propertyNames",
                              "contains", "minContains", "maxProperties", "dependentRequired",
                              "dependentSchemas", "unevaluatedProperties", "unevaluatedItems",
                              "multipleOf", "$dynamicRef", "nullable", "unknownWord"}) {
    const std::string schema =
        std::string(R"({"type":"object","properties":{"a":{")") + keyword + R"(":{}}}})";
    EXPECT_EQ(refusal(schema),
              std::string("schema.properties.a: keyword `") + keyword + "` is not supported");
  }
  EXPECT_THAT(refusal(R"({"uniqueItems":true})"), HasSubstr("`uniqueItems` is not supported"));
  EXPECT_THAT(refusal(R"({"minProperties":1})"), HasSubstr("`minProperties` is not supported"));
}

TEST(JsonSchema, NamesWhatIsMalformed) {
  EXPECT_THAT(refusal("{"), HasSubstr("schema: not valid JSON"));
  EXPECT_THAT(refusal("[]"), HasSubstr("must be an object or a boolean"));
  EXPECT_THAT(refusal(R"({"type":"text"})"), HasSubstr("keyword `type` must name"));
  EXPECT_THAT(refusal(R"({"type":[1]})"), HasSubstr("keyword `type` must name"));
  EXPECT_THAT(refusal(R"({"enum":1})"), HasSubstr("keyword `enum` must be a list"));
  EXPECT_THAT(refusal(R"({"enum":[1],"minimum":0})"), HasSubstr("`minimum` beside `enum`"));
  EXPECT_THAT(refusal(R"({"properties":1})"), HasSubstr("`properties` must be an object"));
  EXPECT_THAT(refusal(R"({"type":"object","required":[1]})"), HasSubstr("`required` must be"));
  EXPECT_THAT(refusal(R"({"properties":{},"required":["b"]})"), HasSubstr("names `b`"));
  EXPECT_THAT(refusal(R"({"prefixItems":1})"), HasSubstr("`prefixItems` must be a list"));
  EXPECT_THAT(refusal(R"({"items":[{}]})"), HasSubstr("belongs in `prefixItems`"));
  EXPECT_THAT(refusal(R"({"minItems":-1})"), HasSubstr("`minItems` must be an integer"));
  EXPECT_THAT(refusal(R"({"maxLength":1.5})"), HasSubstr("`maxLength` must be an integer"));
  EXPECT_THAT(refusal(R"({"minLength":2000000})"), HasSubstr("`minLength` is above 1000000"));
  EXPECT_THAT(refusal(R"({"pattern":1})"), HasSubstr("`pattern` must be a string"));
  EXPECT_THAT(refusal(R"x({"pattern":"a(?=b)"})x"), HasSubstr("lookaround is not supported"));
  EXPECT_THAT(refusal(R"({"format":1})"), HasSubstr("`format` must be a string"));
  EXPECT_THAT(refusal(R"({"type":"number","minimum":"1"})"), HasSubstr("must be a number"));
  EXPECT_THAT(refusal(R"({"type":"integer","minimum":"1"})"), HasSubstr("must be a number"));
  EXPECT_THAT(refusal(R"({"type":"number","minimum":1e300})"), HasSubstr("15 decimal digits"));
  EXPECT_THAT(refusal(R"({"anyOf":[]})"), HasSubstr("`anyOf` must be a list"));
  EXPECT_THAT(refusal(R"({"allOf":{}})"), HasSubstr("`allOf` must be a list"));
  EXPECT_THAT(refusal(R"({"allOf":[1]})"), HasSubstr("expected an object or a boolean"));
  EXPECT_THAT(refusal(R"({"$ref":1})"), HasSubstr("`$ref` must be a string"));
  EXPECT_THAT(refusal(R"({"$ref":"other.json"})"), HasSubstr("only places in this schema"));
  EXPECT_THAT(refusal(R"({"$ref":"#/$defs/none"})"), HasSubstr("nothing is there"));
}

TEST(JsonSchema, RefusesWhatNoValueSatisfies) {
  EXPECT_THAT(refusal("false"), HasSubstr("matches no text"));
  EXPECT_THAT(refusal(R"({"enum":[]})"), HasSubstr("matches no text"));
  EXPECT_THAT(refusal(R"({"type":"integer","minimum":3,"maximum":2})"), HasSubstr("no text"));
  EXPECT_THAT(refusal(R"({"minItems":3,"maxItems":2})"), HasSubstr("no text"));
  EXPECT_THAT(refusal(R"({"$ref":"#"})"), HasSubstr("matches no text"));
  EXPECT_THAT(refusal(R"({"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]})"),
              HasSubstr("matches no text"));
  EXPECT_THAT(refusal(R"({"type":"string","pattern":"^a$","minLength":2})"), HasSubstr("no text"));
}

TEST(JsonSchema, RefusesAlternativesThatMayBothHold) {
  EXPECT_THAT(refusal(R"({"oneOf":[{"type":"number"},{"type":"integer"}]})"),
              HasSubstr("both branch 0 and branch 1"));
  EXPECT_THAT(refusal(R"({"oneOf":[{"type":"object"},{"type":"object"}]})"),
              HasSubstr("both branch 0 and branch 1"));
}

TEST(JsonSchema, RefusesMergesThatItCannotDo) {
  EXPECT_THAT(refusal(R"({"allOf":[{"anyOf":[{"type":"null"}]},{"anyOf":[{"type":"string"}]}]})"),
              HasSubstr("keyword `anyOf` given twice"));
  EXPECT_THAT(refusal(R"({"allOf":[{"properties":{"a":{}},"additionalProperties":false},
                                   {"properties":{"b":{}}}]})"),
              HasSubstr("must name every property"));
}

TEST(JsonSchema, EndsHostileSchemasWithinTheLimits) {
  std::string nested = "true";
  for (int i = 0; i < 200; ++i) nested = R"({"items":)" + nested + "}";
  EXPECT_THAT(refusal(nested), HasSubstr("nested deeper than 64"));
  EXPECT_THAT(refusal(R"({"type":"string","minLength":999999})"), HasSubstr("limit"));
  EXPECT_THAT(refusal(R"({"type":"array","items":{"type":"string"},"minItems":900000})"),
              HasSubstr("limit"));
  std::string doubling = R"({"$defs":{"d0":{"type":"null"})";
  for (int i = 1; i < 25; ++i) {
    const std::string last = R"({"$ref":"#/$defs/d)" + std::to_string(i - 1) + "\"}";
    doubling += ",\"d" + std::to_string(i) + R"(":{"allOf":[)" + last + "," + last + "]}";
  }
  EXPECT_THAT(refusal(doubling + R"(},"$ref":"#/$defs/d24"})"), HasSubstr("to merge"));
  EXPECT_THAT(refusal(R"({"allOf":[{"$ref":"#"}]})"), HasSubstr("too deeply"));
  EXPECT_THAT(refusal(R"({"type":"string","pattern":"(x+x+)+y(a|b)*a(a|b){30}"})"),
              HasSubstr("too complex"));
  std::string names = R"({"type":"object","properties":{)";
  for (int i = 0; i < 3000; ++i) {
    if (i > 0) names += ",";
    names += "\"property" + std::to_string(i) + "\":{}";
  }
  EXPECT_THAT(refusal(names + "}}"), ::testing::AnyOf(HasSubstr("limit"), HasSubstr("compiled"),
                                                      HasSubstr("at most 65536")));
}

// An independent, plain reading of the keywords that the generator below uses.
class Validator {
 public:
  explicit Validator(const OrderedJson& root) : root_(root) {}

  bool valid(const OrderedJson& value, const OrderedJson& schema) const {
    if (schema.is_boolean()) return schema.get<bool>();
    if (schema.contains("$ref")) {
      const std::string name = schema["$ref"].get<std::string>().substr(8);
      return valid(value, root_["$defs"][name]);
    }
    if (schema.contains("anyOf")) {
      for (const OrderedJson& branch : schema["anyOf"]) {
        if (valid(value, branch)) return true;
      }
      return false;
    }
    if (schema.contains("enum")) {
      for (const OrderedJson& one : schema["enum"]) {
        if (one == value) return true;
      }
      return false;
    }
    const std::string type = schema.value("type", "");
    if (type == "object") return valid_object(value, schema);
    if (type == "array") return valid_array(value, schema);
    if (type == "string") return value.is_string() && valid_length(value, schema);
    if (type == "integer") return value.is_number_integer() && within(value, schema);
    if (type == "number") return value.is_number() && within(value, schema);
    if (type == "boolean") return value.is_boolean();
    return type == "null" && value.is_null();
  }

 private:
  static bool within(const OrderedJson& value, const OrderedJson& schema) {
    const auto x = value.get<double>();
    return (!schema.contains("minimum") || x >= schema["minimum"].get<double>()) &&
           (!schema.contains("maximum") || x <= schema["maximum"].get<double>()) &&
           (!schema.contains("exclusiveMinimum") || x > schema["exclusiveMinimum"].get<double>()) &&
           (!schema.contains("exclusiveMaximum") || x < schema["exclusiveMaximum"].get<double>());
  }

  static bool valid_length(const OrderedJson& value, const OrderedJson& schema) {
    size_t length = 0;
    for (const char c : value.get_ref<const std::string&>())
      length += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
    return length >= schema.value("minLength", size_t{0}) &&
           length <= schema.value("maxLength", size_t{1000000});
  }

  bool valid_array(const OrderedJson& value, const OrderedJson& schema) const {
    if (!value.is_array() || value.size() < schema.value("minItems", size_t{0}) ||
        value.size() > schema.value("maxItems", size_t{1000000}))
      return false;
    const OrderedJson prefix = schema.value("prefixItems", OrderedJson::array());
    for (size_t i = 0; i < value.size(); ++i) {
      const OrderedJson rest = schema.value("items", OrderedJson(prefix.empty()));
      if (!valid(value[i], i < prefix.size() ? prefix[i] : rest)) return false;
    }
    return true;
  }

  bool valid_object(const OrderedJson& value, const OrderedJson& schema) const {
    if (!value.is_object()) return false;
    for (const OrderedJson& name : schema["required"]) {
      if (!value.contains(name.get<std::string>())) return false;
    }
    for (const auto& [name, member] : value.items()) {
      const OrderedJson other = schema.value("additionalProperties", OrderedJson(false));
      if (!valid(member, schema["properties"].value(name, other))) return false;
    }
    return true;
  }

  const OrderedJson& root_;
};

class SchemaGenerator {
 public:
  explicit SchemaGenerator(uint64_t seed) : random_(seed) {}

  OrderedJson run() {
    OrderedJson root = schema(3);
    if (root.is_boolean() || root.contains("$ref")) root = {{"type", "object"}};
    if (root.contains("type") && root["type"] == "object" && !root.contains("properties")) {
      root["properties"] = OrderedJson::object();
      root["required"] = OrderedJson::array();
    }
    root["$defs"]["leaf"] = schema(0);
    // May hold itself, behind a list that may be empty.
    root["$defs"]["node"] = object(1);
    root["$defs"]["node"]["properties"]["kids"] = {
        {"type", "array"}, {"items", {{"$ref", "#/$defs/node"}}}, {"maxItems", 2}};
    return root;
  }

 private:
  size_t below(size_t end) { return random_.below(end); }

  OrderedJson schema(int depth) {
    switch (below(depth > 0 ? 11 : 6)) {
      case 0:
        return {{"type", "boolean"}};
      case 1:
        return {{"type", "null"}};
      case 2:
        return number("integer");
      case 3:
        return number("number");
      case 4:
        return string();
      case 5:
        return {{"enum", {"a", 1, nullptr, "\"q\"\n", {{"k", {true}}}}}};
      case 6:
      case 7:
        return object(depth - 1);
      case 8:
        return array(depth - 1);
      case 9:
        return {{"anyOf", {schema(depth - 1), schema(depth - 1)}}};
      default:
        return {{"$ref", below(2) == 0 ? "#/$defs/leaf" : "#/$defs/node"}};
    }
  }

  OrderedJson number(const char* type) {
    OrderedJson out = {{"type", type}};
    const double low = static_cast<double>(below(4000)) / (below(2) == 0 ? 8 : 1) - 200;
    const double width = 1 + static_cast<double>(below(300));
    const bool fraction = out["type"] == "number";
    if (below(2) == 0) out[below(3) == 0 ? "exclusiveMinimum" : "minimum"] = low;
    if (below(2) == 0)
      out[below(3) == 0 ? "exclusiveMaximum" : "maximum"] = low + (fraction ? 0.75 : 2) + width;
    return out;
  }

  OrderedJson string() {
    OrderedJson out = {{"type", "string"}};
    const size_t min = below(4);
    if (below(2) == 0) out["minLength"] = min;
    if (below(2) == 0) out["maxLength"] = min + below(60);
    return out;
  }

  OrderedJson object(int depth) {
    OrderedJson out = {{"type", "object"}, {"properties", OrderedJson::object()}};
    out["required"] = OrderedJson::array();
    const size_t count = below(4);
    for (size_t i = 0; i < count; ++i) {
      const std::string name = std::string(1 + below(2), static_cast<char>('a' + i));
      out["properties"][name] = schema(depth);
      if (below(2) == 0) out["required"].push_back(name);
    }
    if (below(4) == 0) out["additionalProperties"] = schema(0);
    return out;
  }

  OrderedJson array(int depth) {
    OrderedJson out = {{"type", "array"}, {"items", schema(depth)}};
    const size_t min = below(3);
    if (below(2) == 0) out["minItems"] = min;
    if (below(2) == 0) out["maxItems"] = min + below(12);
    if (below(4) == 0) out["prefixItems"] = {schema(0), schema(depth)};
    return out;
  }

  Random random_;
};

// A random answer; the end and closing characters are preferred after a while so that it comes to
// an end. Empty when it did not.
std::string random_answer(const std::shared_ptr<const Grammar>& grammar, Random& random) {
  GrammarMatcher matcher(grammar);
  std::string text;
  for (int step = 0; step < 1500 && !matcher.ended(); ++step) {
    const std::vector<uint32_t> mask = mask_of(matcher);
    std::vector<int32_t> ids = allowed_ids(mask);
    EXPECT_FALSE(ids.empty()) << text;
    if (ids.empty()) return {};
    if (step > 60) {
      std::vector<int32_t> closing;
      for (const int32_t id : {kTestEos, int32_t{'"'}, int32_t{']'}, int32_t{'}'}}) {
        if (allowed(mask, id)) closing.push_back(id);
      }
      if (!closing.empty()) ids = closing;
    }
    const int32_t id = ids[random.below(ids.size())];
    EXPECT_TRUE(matcher.accept(id)) << text;
    text += id == kTestEos ? "" : written(id);
  }
  return matcher.ended() ? text : std::string();
}

TEST(JsonSchema, RandomAnswersOfRandomSchemasValidate) {
  int answers = 0;
  for (uint64_t seed = 0; seed < 150; ++seed) {
    const OrderedJson schema = SchemaGenerator(seed).run();
    const auto result = test_compiler().json_schema(schema.dump());
    ASSERT_TRUE(result) << "seed " << seed << ": " << result.error().message << schema.dump();
    Random random(seed + 1000);
    for (int i = 0; i < 4; ++i) {
      const std::string text = random_answer(*result, random);
      if (text.empty()) continue;
      ++answers;
      const OrderedJson value = OrderedJson::parse(text, nullptr, false);
      ASSERT_FALSE(value.is_discarded()) << "seed " << seed << ": " << text;
      ASSERT_TRUE(Validator(schema).valid(value, schema))
          << "seed " << seed << ": " << schema.dump() << "\n"
          << text;
    }
  }
  EXPECT_GT(answers, 500);
}

TEST(JsonSchema, RandomJsonObjectsParse) {
  const auto grammar = test_compiler().json_object();
  ASSERT_TRUE(grammar);
  Random random(5);
  for (int i = 0; i < 30; ++i) {
    const std::string text = random_answer(*grammar, random);
    if (text.empty()) continue;
    EXPECT_TRUE(OrderedJson::parse(text, nullptr, false).is_object()) << text;
  }
}

}  // namespace
}  // namespace quern
