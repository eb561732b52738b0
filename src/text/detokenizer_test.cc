#include "text/detokenizer.h"

#include <cstdio>

#include <gtest/gtest.h>

namespace quern {
namespace {

// Tokens 0 to 255 are the bytes; 256 is special.
std::unique_ptr<Tokenizer> bytes_tokenizer() {
  std::string vocabulary;
  for (int b = 0; b < 256; ++b) {
    char token[16];
    std::snprintf(token, sizeof token, "\"<0x%02X>\": %d,", static_cast<unsigned>(b), b);
    vocabulary += token;
  }
  const std::string json = R"({"added_tokens": [{"id": 256, "content": "<e>", "special": true}],
      "decoder": {"type": "ByteFallback"},
      "model": {"type": "BPE", "merges": [], "vocab": {)" +
                           vocabulary + R"("<e>": 256}}})";
  auto tokenizer = Tokenizer::from_json(json, "bytes");
  EXPECT_TRUE(tokenizer) << tokenizer.error().message;
  return std::move(*tokenizer);
}

TEST(Detokenizer, NeverSplitsACodePoint) {
  const auto tokenizer = bytes_tokenizer();
  Detokenizer stream(*tokenizer);
  EXPECT_EQ(stream.push('a'), "a");
  EXPECT_EQ(stream.push(0xF0), "");
  EXPECT_EQ(stream.push(0x9F), "");
  EXPECT_EQ(stream.push(0x98), "");
  EXPECT_EQ(stream.push(0x80), "\U0001F600");
  EXPECT_EQ(stream.finish(), "");
}

TEST(Detokenizer, ReplacesWhatCannotBecomeACodePoint) {
  const auto tokenizer = bytes_tokenizer();
  Detokenizer stream(*tokenizer);
  EXPECT_EQ(stream.push(0xFF), "\uFFFD");
  EXPECT_EQ(stream.push(0xE4), "");
  EXPECT_EQ(stream.push('x'), "\uFFFDx");
  EXPECT_EQ(stream.push(0xE4), "");
  EXPECT_EQ(stream.push(0xB8), "");
  EXPECT_EQ(stream.finish(), "\uFFFD");
  EXPECT_EQ(stream.finish(), "") << "nothing is left to flush";
}

TEST(Detokenizer, LeavesSpecialTokensOutWithinACodePoint) {
  const auto tokenizer = bytes_tokenizer();
  Detokenizer stream(*tokenizer);
  EXPECT_EQ(stream.push(0xC3), "");
  EXPECT_EQ(stream.push(256), "");
  EXPECT_EQ(stream.push(0xA9), "\u00E9");
  EXPECT_EQ(stream.push(-1), "");
  EXPECT_EQ(stream.push(99999), "");
}

}  // namespace
}  // namespace quern
