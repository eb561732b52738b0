#include "text/normalizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "text/tokenizer_golden.h"

namespace quern {
namespace {

using ::testing::HasSubstr;

std::string error_of(const std::string& json) {
  const auto made = Normalizer::from_json(Json::parse(json), "t normalizer");
  EXPECT_FALSE(made) << json;
  return made ? "" : made.error().message;
}

TEST(Normalizer, RewritesAsHuggingFace) {
  const Json golden = golden_json("normalizers.json");
  const auto texts = golden["texts"].get<std::vector<std::string>>();
  for (const Json& step : golden["steps"]) {
    SCOPED_TRACE(step["config"].dump());
    const auto made = Normalizer::from_json(step["config"], "golden");
    ASSERT_TRUE(made) << made.error().message;
    for (size_t i = 0; i < texts.size(); ++i) {
      std::string text = texts[i];
      made->apply(text);
      EXPECT_EQ(text, step["expected"][i].get<std::string>()) << texts[i];
    }
  }
}

TEST(Normalizer, RefusesUnknownTypesAndBadFields) {
  EXPECT_THAT(error_of(R"({"type": "Magic"})"),
              HasSubstr("t normalizer: type \"Magic\" is not known; known are NFC, "));
  EXPECT_THAT(error_of(R"({"type": "Precompiled", "precompiled_charsmap": "AAAA"})"),
              HasSubstr("type \"Precompiled\" is not known"));
  EXPECT_THAT(error_of(R"([])"), HasSubstr("t normalizer: is array"));
  EXPECT_THAT(error_of(R"({"type": 3})"), HasSubstr("type"));
  EXPECT_THAT(error_of(R"({"type": "Sequence"})"), HasSubstr("without a list \"normalizers\""));
  EXPECT_THAT(error_of(R"({"type": "Prepend"})"), HasSubstr("prepend"));
  EXPECT_THAT(error_of(R"({"type": "Replace", "content": ""})"), HasSubstr("pattern"));
  EXPECT_THAT(error_of(R"({"type": "Replace", "content": "", "pattern": {"Regex": "("}})"),
              HasSubstr("does not compile"));
  EXPECT_THAT(error_of(R"({"type": "Strip", "strip_left": 1})"), HasSubstr("strip_left"));
}

TEST(Normalizer, RefusesTooManySteps) {
  Json steps = Json::array();
  for (size_t i = 0; i <= kMaxPipelineSteps; ++i) steps.push_back({{"type", "NFC"}});
  EXPECT_THAT(error_of(Json{{"type", "Sequence"}, {"normalizers", steps}}.dump()),
              HasSubstr("more than 64 steps"));
}

TEST(Normalizer, NullAndEmptyMapsAreTheIdentity) {
  EXPECT_TRUE(Normalizer::from_json(nullptr, "t")->identity());
  EXPECT_TRUE(Normalizer::from_json({{"type", "Precompiled"}}, "t")->identity());
}

}  // namespace
}  // namespace quern
