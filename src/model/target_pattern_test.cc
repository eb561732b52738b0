#include "model/target_pattern.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quern {
namespace {

bool matches(const std::string& pattern, const std::string& name) {
  return TargetPattern::parse(pattern, "test").value().matches(name, "Linear");
}

TEST(TargetPattern, MeansAClassOrAWholeName) {
  EXPECT_TRUE(matches("Linear", "model.layers.0.mlp.up_proj"));
  EXPECT_TRUE(matches("lm_head", "lm_head"));
  EXPECT_FALSE(matches("lm_head", "model.lm_head"));
  EXPECT_FALSE(matches("Embedding", "model.embed_tokens"));
}

TEST(TargetPattern, MatchesAnExpressionFromTheBeginning) {
  EXPECT_TRUE(matches("re:.*\\.up_proj$", "model.layers.0.mlp.up_proj"));
  EXPECT_FALSE(matches("re:up_proj", "model.layers.0.mlp.up_proj"));
  EXPECT_TRUE(matches("re:model", "model.layers.0.mlp.up_proj"));
  EXPECT_TRUE(
      matches("re:.*layers\\.(0|31)\\..*(q|k|v|qkv)_proj$", "model.layers.31.self_attn.v_proj"));
  EXPECT_FALSE(
      matches("re:.*layers\\.(0|31)\\..*(q|k|v|qkv)_proj$", "model.layers.3.self_attn.v_proj"));
}

TEST(TargetPattern, RefusesWhatDoesNotCompile) {
  const auto pattern = TargetPattern::parse("re:(unclosed", "config.json: \"targets\"");
  ASSERT_FALSE(pattern);
  EXPECT_THAT(pattern.error().message,
              testing::HasSubstr("config.json: \"targets\": \"re:(unclosed\" is no valid"));
}

TEST(TargetPattern, GivesUpOnAnExpressionThatExplodes) {
  EXPECT_FALSE(matches("re:(a+)+(b|a)*c$", std::string(60, 'a')));
}

}  // namespace
}  // namespace quern
