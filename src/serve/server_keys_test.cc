#include "serve/server_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quern {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(ApiKeys, NamesTheKeysItKnows) {
  const ApiKeys keys = *ApiKeys::parse(
      "# staff\nalice  first-secret-key-1\r\n\n  second-secret-key-2  \n", "keys.txt");
  ASSERT_EQ(keys.size(), 2u);
  EXPECT_EQ(keys.find("first-secret-key-1")->name, "alice");
  EXPECT_EQ(keys.find("second-secret-key-2")->name, "key-2");
  EXPECT_EQ(keys.find("first-secret-key-"), nullptr);
  EXPECT_EQ(keys.find("first-secret-key-12"), nullptr);
  EXPECT_EQ(keys.find(""), nullptr);
  EXPECT_EQ(keys.find(std::string(100000, 'a')), nullptr);
}

TEST(ApiKeys, KnowWhoIsAnAdmin) {
  const ApiKeys keys = *ApiKeys::parse(
      "root root-secret-key-1 \t admin\nadmin other-secret-key-2\nthird-secret-key-3", "keys.txt");
  EXPECT_EQ(keys.find("root-secret-key-1")->role, KeyRole::kAdmin);
  EXPECT_EQ(keys.find("root-secret-key-1")->name, "root");
  EXPECT_EQ(keys.find("other-secret-key-2")->role, KeyRole::kCaller);
  EXPECT_EQ(keys.find("third-secret-key-3")->role, KeyRole::kCaller);
}

TEST(ApiKeys, RefusesBadFilesWithoutShowingKeys) {
  const auto message = [](const std::string& text) {
    const auto keys = ApiKeys::parse(text, "keys.txt");
    EXPECT_FALSE(keys);
    return keys ? "" : keys.error().message;
  };
  EXPECT_THAT(message(""), HasSubstr("keys.txt: no key"));
  EXPECT_THAT(message("# only a comment\n"), HasSubstr("no key"));
  EXPECT_THAT(message("\nshort\n"), HasSubstr("line 2: a key has 16 to 512 characters"));
  EXPECT_THAT(message(std::string(513, 'k')), HasSubstr("this one 513"));
  EXPECT_THAT(message("a b c-is-a-key-of-some-length"), HasSubstr("a name and a key"));
  EXPECT_THAT(message("a the-key-of-somebody-else root"), HasSubstr("a name, a key and \"admin\""));
  const std::string twice = message("one-secret-key-1234\nx one-secret-key-1234\n");
  EXPECT_THAT(twice, HasSubstr("line 2: the key is there twice"));
  EXPECT_THAT(twice, Not(HasSubstr("one-secret")));
}

TEST(ApiKeys, RefusesAMissingFile) { EXPECT_FALSE(ApiKeys::load("/nowhere/keys")); }

TEST(PresentedKey, ComesFromEitherField) {
  EXPECT_EQ(presented_key("Bearer abc", ""), "abc");
  EXPECT_EQ(presented_key("bEARER  abc ", "other"), "abc");
  EXPECT_EQ(presented_key("", "abc"), "abc");
  EXPECT_EQ(presented_key("Basic abc", ""), "");
  EXPECT_EQ(presented_key("Bearer", ""), "");
  EXPECT_EQ(presented_key("", ""), "");
}

}  // namespace
}  // namespace quern
