#include "load/objective.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quern {
namespace {

TEST(Objective, HasAnyOfItsThreeLimits) {
  const Result<Objective> all = parse_objective("ttft=500ms,tpot=50ms,e2e=10s");
  ASSERT_TRUE(all);
  EXPECT_EQ(all->ttft_ms, 500);
  EXPECT_EQ(all->tpot_ms, 50);
  EXPECT_EQ(all->e2e_ms, 10'000);
  const Result<Objective> one = parse_objective("e2el=2s");
  ASSERT_TRUE(one);
  EXPECT_EQ(one->e2e_ms, 2000);
  EXPECT_FALSE(one->ttft_ms || one->tpot_ms);
  EXPECT_FALSE(one->empty());
  EXPECT_TRUE(Objective().empty());
}

TEST(Objective, NamesThePartThatIsWrong) {
  for (const auto& [text, part] : std::initializer_list<std::pair<const char*, const char*>>{
           {"", "\"\""},
           {"ttft", "\"ttft\""},
           {"ttft=5", "\"ttft=5\""},
           {"ttft=5ms,ttft=6ms", "\"ttft=6ms\""},
           {"e2e=1s,e2el=1s", "\"e2el=1s\""},
           {"itl=5ms", "\"itl=5ms\""},
           {"ttft=5ms,", "\"\""},
           {"ttft=-5ms", "\"ttft=-5ms\""}}) {
    const Result<Objective> parsed = parse_objective(text);
    ASSERT_FALSE(parsed) << text;
    EXPECT_THAT(parsed.error().message, testing::HasSubstr(part)) << text;
  }
}

}  // namespace
}  // namespace quern
