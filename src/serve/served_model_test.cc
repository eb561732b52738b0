#include "serve/served_model.h"

#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "serve/api_test_support.h"

namespace quern {
namespace {

using testing::HasSubstr;

GenerationDefaults parsed(std::string_view text) {
  auto defaults = parse_generation_defaults(text, "generation_config.json");
  EXPECT_TRUE(defaults) << defaults.error().message;
  return defaults ? *defaults : GenerationDefaults{};
}

std::string error_of(std::string_view text) {
  const auto defaults = parse_generation_defaults(text, "generation_config.json");
  return defaults ? "" : defaults.error().message;
}

TEST(ServedModel, ReadsWhatThePublisherRecommends) {
  EXPECT_EQ(parsed("{}"), GenerationDefaults{});
  const GenerationDefaults all = parsed(
      R"({"temperature":0.6,"top_k":20,"top_p":0.95,"min_p":0.05,"repetition_penalty":1.05,
          "do_sample":true,"eos_token_id":[1,2],"transformers_version":"4"})");
  EXPECT_EQ(all, (GenerationDefaults{.temperature = 0.6f,
                                     .top_k = 20,
                                     .top_p = 0.95f,
                                     .min_p = 0.05f,
                                     .repetition_penalty = 1.05f}));
  EXPECT_EQ(parsed(R"({"top_k":-1})").top_k, 0);
  EXPECT_EQ(parsed(R"({"do_sample":false,"temperature":0.6})").temperature, 0.0f);
  EXPECT_EQ(parsed(R"({"temperature":null})").temperature, std::nullopt);
}

TEST(ServedModel, RefusesRecommendationsOutOfRange) {
  EXPECT_THAT(error_of("["), HasSubstr("not valid JSON"));
  EXPECT_THAT(error_of("[]"), HasSubstr("not a JSON object"));
  EXPECT_THAT(error_of(R"({"temperature":-1})"), HasSubstr("a number in [0, 100]"));
  EXPECT_THAT(error_of(R"({"temperature":"x"})"), HasSubstr("a number"));
  EXPECT_THAT(error_of(R"({"top_p":0})"), HasSubstr("a number in (0, 1]"));
  EXPECT_THAT(error_of(R"({"top_k":1.5})"), HasSubstr("an integer"));
  EXPECT_THAT(error_of(R"({"min_p":2})"), HasSubstr("a number in [0, 1]"));
  EXPECT_THAT(error_of(R"({"repetition_penalty":0})"), HasSubstr("a number in (0, 10]"));
  EXPECT_THAT(error_of(R"({"do_sample":1})"), HasSubstr("true or false"));
}

TEST(ServedModel, RecommendationsLieInADirectory) {
  const auto directory = std::filesystem::path(testing::TempDir()) / "served_model_test";
  std::filesystem::create_directories(directory);
  std::filesystem::remove(directory / "generation_config.json");
  EXPECT_EQ(*read_generation_defaults(directory), GenerationDefaults{});
  std::ofstream(directory / "generation_config.json") << R"({"top_k":7})";
  EXPECT_EQ(read_generation_defaults(directory)->top_k, 7);
  std::ofstream(directory / "generation_config.json") << R"({"top_k":)";
  const auto broken = read_generation_defaults(directory);
  ASSERT_FALSE(broken);
  EXPECT_THAT(broken.error().message, HasSubstr("generation_config.json"));
  std::filesystem::remove_all(directory);
}

TEST(ServedModel, IsFoundByItsId) {
  const TestModel model;
  EXPECT_EQ(model.models.find("test"), &model.model);
  EXPECT_EQ(model.models.find("tes"), nullptr);
}

TEST(ServedModel, TheTemplateSeesTheTokenizersTokens) {
  TestModel model;
  set_template_tokens(model.model);
  EXPECT_EQ(model.model.bos_token, "");
  EXPECT_EQ(model.model.eos_token, "<|im_end|>");
}

}  // namespace
}  // namespace quern
