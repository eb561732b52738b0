#include "engine/speculation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/random.h"

namespace quern {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::vector<int32_t> guess(const std::vector<int32_t>& tokens,
                           const SpeculationOptions& options,
                           int64_t most) {
  std::vector<int32_t> draft = {99};
  guess_from_text(tokens, options, most, draft);
  return draft;
}

constexpr SpeculationOptions kOptions{.max_draft = 4, .min_ngram = 2, .max_ngram = 3};

TEST(GuessFromText, RepeatsWhatFollowedTheSameTokensBefore) {
  EXPECT_THAT(guess({5, 1, 2, 7, 8, 9, 1, 2}, kOptions, 4), ElementsAre(7, 8, 9, 1));
  EXPECT_THAT(guess({5, 1, 2, 7, 8, 9, 1, 2}, kOptions, 2), ElementsAre(7, 8));
}

TEST(GuessFromText, GuessesNothingWithoutALongEnoughMatch) {
  EXPECT_THAT(guess({1, 2, 3, 4, 5}, kOptions, 4), IsEmpty());
  EXPECT_THAT(guess({1, 2, 3, 9, 3}, kOptions, 4), IsEmpty());  // one token alone
  EXPECT_THAT(guess({1}, kOptions, 4), IsEmpty());
  EXPECT_THAT(guess({}, kOptions, 4), IsEmpty());
  EXPECT_THAT(guess({1, 2, 1, 2}, kOptions, 0), IsEmpty());
}

TEST(GuessFromText, PrefersTheLongestMatchThenTheLast) {
  EXPECT_THAT(guess({3, 1, 2, 7, 4, 1, 2, 8, 3, 1, 2}, kOptions, 1), ElementsAre(7));
  EXPECT_THAT(guess({1, 2, 7, 1, 2, 8, 1, 2}, kOptions, 1), ElementsAre(8));
}

TEST(GuessFromText, GoesOnBeyondTheEndOfATextThatRepeatsItself) {
  EXPECT_THAT(guess({4, 1, 2, 1, 2}, {.max_draft = 6}, 6), ElementsAre(1, 2, 1, 2, 1, 2));
  EXPECT_THAT(guess({6, 6, 6}, {.max_draft = 4}, 4), ElementsAre(6, 6, 6, 6));
}

TEST(Acceptance, FollowsWhatItSees) {
  Acceptance acceptance;
  for (int i = 0; i < 100; ++i) acceptance.observe(true);
  EXPECT_GT(acceptance.rate(), 0.95);
  for (int i = 0; i < 100; ++i) acceptance.observe(i % 4 == 0);
  EXPECT_NEAR(acceptance.rate(), 0.25, 0.15);
}

// A policy that has seen steps of 1 to 8 rows at the cost of step_ns + row_ns * rows.
DraftPolicy taught(int64_t step_ns, int64_t row_ns) {
  DraftPolicy policy;
  for (uint64_t i = 0; i < 300; ++i) {
    const auto rows = static_cast<int64_t>(1 + random_bits(1, 2, i) % 8);
    policy.observe(rows, step_ns + row_ns * rows);
  }
  policy.begin_step();
  return policy;
}

TEST(DraftPolicy, GuessesAsFarAsItLikelyPays) {
  // One sequence: a step takes 100, a row more 10, so a guess pays from a probability of 0.1 on.
  const DraftPolicy policy = taught(90, 10);
  EXPECT_EQ(policy.length(0.9, 1, 8), 8);
  EXPECT_EQ(policy.length(0.5, 1, 8), 3);  // 0.5^3 = 0.125
  EXPECT_EQ(policy.length(0.2, 1, 8), 1);
  EXPECT_EQ(policy.length(0.05, 1, 8), 0);
}

TEST(DraftPolicy, GuessesLessTheMoreSequencesShareAStep) {
  // Eight sequences: a step takes 170 and gives eight tokens, so a row's 10 must give 0.47.
  const DraftPolicy policy = taught(90, 10);
  EXPECT_EQ(policy.length(0.5, 8, 8), 1);
  EXPECT_EQ(policy.length(0.4, 8, 8), 0);
}

TEST(DraftPolicy, GuessesNothingWhereARowCostsAsMuchAsAStep) {
  EXPECT_EQ(taught(0, 50).length(0.95, 1, 8), 0);
}

TEST(DraftPolicy, TriesAsLongAsItKnowsNothingAndNowAndThen) {
  DraftPolicy fresh;
  fresh.begin_step();
  EXPECT_EQ(fresh.length(0.5, 1, 6), 6);
  DraftPolicy policy = taught(0, 50);
  int64_t tried = 0;
  for (int i = 0; i < 640; ++i) {
    policy.begin_step();
    tried += policy.length(0.5, 1, 6);
  }
  EXPECT_EQ(tried, 10);
  EXPECT_EQ(policy.length(0.5, 1, 0), 0);
}

TEST(DraftPolicy, KeepsWhatARowCostsWhenAllStepsAreAlike) {
  DraftPolicy policy = taught(90, 10);
  for (int i = 0; i < 5000; ++i) policy.observe(1, 100);
  policy.begin_step();
  EXPECT_EQ(policy.length(0.5, 1, 8), 3);
}

}  // namespace
}  // namespace quern
