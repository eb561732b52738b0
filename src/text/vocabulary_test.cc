#include "text/vocabulary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quern {
namespace {

using ::testing::HasSubstr;

TEST(Vocabulary, FindsTokensAndToleratesHoles) {
  Vocabulary vocabulary;
  ASSERT_TRUE(vocabulary.add(5, "five"));
  ASSERT_TRUE(vocabulary.add(0, ""));
  vocabulary.index();
  EXPECT_EQ(vocabulary.size(), 6);
  EXPECT_EQ(vocabulary.find("five"), 5);
  EXPECT_EQ(vocabulary.find(""), 0);
  EXPECT_EQ(vocabulary.find("six"), std::nullopt);
  EXPECT_EQ(vocabulary.token(5), "five");
  EXPECT_FALSE(vocabulary.has(3));
  EXPECT_EQ(vocabulary.token(3), "");
  EXPECT_EQ(vocabulary.token(-1), "");
  EXPECT_EQ(vocabulary.token(6), "");
}

TEST(Vocabulary, LowestIdWinsAmongEqualTokens) {
  Vocabulary vocabulary;
  ASSERT_TRUE(vocabulary.add(7, "x"));
  ASSERT_TRUE(vocabulary.add(2, "x"));
  vocabulary.index();
  EXPECT_EQ(vocabulary.find("x"), 2);
  EXPECT_EQ(vocabulary.token(7), "x");
}

TEST(Vocabulary, RefusesBadEntries) {
  Vocabulary vocabulary;
  ASSERT_TRUE(vocabulary.add(1, "a"));
  EXPECT_THAT(vocabulary.add(1, "b").error().message, HasSubstr("token id 1 is given twice"));
  EXPECT_THAT(vocabulary.add(-1, "b").error().message, HasSubstr("token id -1 is outside"));
  EXPECT_THAT(vocabulary.add(kMaxVocabularyIds, "b").error().message, HasSubstr("is outside"));
  EXPECT_THAT(vocabulary.add(2, std::string(kMaxTokenBytes + 1, 'a')).error().message,
              HasSubstr("at most 65536"));
}

TEST(Vocabulary, EmptyFindsNothing) {
  Vocabulary vocabulary;
  EXPECT_EQ(vocabulary.find("a"), std::nullopt);
  vocabulary.index();
  EXPECT_EQ(vocabulary.find("a"), std::nullopt);
}

}  // namespace
}  // namespace quern
