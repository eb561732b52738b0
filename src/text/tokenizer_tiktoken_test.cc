#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "text/tokenizer.h"
#include "text/tokenizer_base64.h"

namespace quern {
namespace {

using ::testing::HasSubstr;

using Ids = std::vector<int32_t>;

std::string base64(std::string_view bytes) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t bits = 0;
    for (size_t j = i; j < i + 3; ++j)
      bits = bits << 8 | (j < bytes.size() ? static_cast<uint8_t>(bytes[j]) : 0u);
    for (size_t j = 0; j < 4; ++j)
      out += i + j > bytes.size() ? '=' : kDigits[bits >> (18 - 6 * j) & 63];
  }
  return out;
}

// Every byte, every pair of bytes, and as many triples as make `ranks` tokens.
std::string tiktoken_file(size_t ranks) {
  std::string text;
  for (size_t rank = 0; rank < ranks; ++rank) {
    constexpr size_t kPairs = 256, kTriples = kPairs + 256 * 256;
    size_t digits = rank < kPairs ? rank : rank < kTriples ? rank - kPairs : rank - kTriples;
    const size_t length = rank < kPairs ? 1 : rank < kTriples ? 2 : 3;
    std::string token(length, '\0');
    for (size_t i = 0; i < length; ++i, digits /= 256)
      token[length - 1 - i] = static_cast<char>(digits % 256);
    if (length == 3) token[0] = static_cast<char>('a' + token[0]);
    text += base64(token) + " " + std::to_string(rank) + "\n";
  }
  return text;
}

std::string error_of(std::string_view text) {
  const auto tokenizer = Tokenizer::from_tiktoken(text, "t.tiktoken");
  EXPECT_FALSE(tokenizer);
  return tokenizer ? "" : tokenizer.error().message;
}

TEST(Tiktoken, KnowsTheFamiliesByTheirNumberOfRanks) {
  struct Family {
    size_t ranks;
    std::string_view special;
    int32_t id, size;
    std::optional<int32_t> bos;
    size_t eos;
  };

  for (const Family& family : {Family{128'000, "<|eot_id|>", 128'009, 128'256, 128'000, 3},
                               Family{200'000, "<|eot|>", 200'008, 202'048, 200'000, 3},
                               Family{151'643, "<|im_end|>", 151'645, 151'851, std::nullopt, 2}}) {
    const auto made = Tokenizer::from_tiktoken(tiktoken_file(family.ranks), "t");
    ASSERT_TRUE(made) << made.error().message;
    const Tokenizer& tokenizer = **made;
    EXPECT_EQ(tokenizer.id_of(family.special), family.id);
    EXPECT_EQ(tokenizer.vocabulary_size(), family.size);
    EXPECT_EQ(tokenizer.bos_id(), family.bos);
    EXPECT_EQ(tokenizer.eos_ids().size(), family.eos);
    const std::string text = std::string(family.special) + "abc";
    EXPECT_EQ(tokenizer.encode(text, SpecialTokens::kParse),
              (Ids{family.id, 256 + 65536 + 'b' * 256 + 'c'}));
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text, SpecialTokens::kAsText)), text);
    EXPECT_EQ(tokenizer.encode_with_template("", SpecialTokens::kParse).size(),
              family.bos ? 1u : 0u);
  }
}

TEST(Tiktoken, RefusesBrokenFiles) {
  EXPECT_THAT(error_of("IQ==\n"), HasSubstr("t.tiktoken: line 1 is no tiktoken entry"));
  EXPECT_THAT(error_of("IQ== x\n"), HasSubstr("line 1 is no tiktoken entry"));
  EXPECT_THAT(error_of("IQ== 0\r\nIQ!= 1\n"), HasSubstr("line 2 is no tiktoken entry"));
  EXPECT_THAT(error_of("IQ== 9999999999\n"), HasSubstr("line 1 is no tiktoken entry"));
  EXPECT_THAT(error_of("IQ== 99999999\n"), HasSubstr("token id 99999999 is outside"));
  EXPECT_THAT(error_of("IQ== 0\nIg== 0\n"), HasSubstr("line 2: token id 0 is given twice"));
  EXPECT_THAT(error_of(" 0\n"), HasSubstr("line 1 is no tiktoken entry"));
  EXPECT_THAT(error_of(""), HasSubstr("not every byte has a rank"));
  EXPECT_THAT(error_of(tiktoken_file(1000)),
              HasSubstr("a tiktoken file of 1000 ranks; known are 128000 (Llama 3)"));
}

TEST(Base64, Decodes) {
  EXPECT_EQ(decode_base64(""), "");
  EXPECT_EQ(decode_base64("YQ=="), "a");
  EXPECT_EQ(decode_base64("YWI="), "ab");
  EXPECT_EQ(decode_base64("YWJj"), "abc");
  EXPECT_EQ(decode_base64("+/8="), "\xFB\xFF");
  for (const char* broken : {"Y", "YQ=", "Y===", "=", "Y!==", "YQ==YQ=="})
    EXPECT_EQ(decode_base64(broken), std::nullopt) << broken;
}

}  // namespace
}  // namespace quern
