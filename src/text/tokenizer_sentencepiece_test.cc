#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "text/tokenizer.h"
#include "text/tokenizer_golden.h"

namespace quern {
namespace {

using ::testing::HasSubstr;

using Ids = std::vector<int32_t>;

// Protobuf fields with numbers below 16 and lengths below 128.
std::string bytes_field(int number, std::string_view bytes) {
  return std::string{static_cast<char>(number << 3 | 2), static_cast<char>(bytes.size())} +
         std::string(bytes);
}

std::string varint_field(int number, int value) {
  return {static_cast<char>(number << 3), static_cast<char>(value)};
}

std::string model_of(const std::string& trainer, const std::string& rules) {
  return bytes_field(1, bytes_field(1, "<unk>") + varint_field(3, 2)) +
         bytes_field(1, bytes_field(1, "\u2581")) + bytes_field(1, bytes_field(1, "a")) +
         bytes_field(2, trainer) + bytes_field(3, rules);
}

const std::string kBpe = varint_field(3, 2);

std::string error_of(std::string_view bytes) {
  const auto tokenizer = Tokenizer::from_sentencepiece(bytes, "t.model");
  EXPECT_FALSE(tokenizer);
  return tokenizer ? "" : tokenizer.error().message;
}

TEST(SentencePiece, EncodesAndDecodesAsTheLibrary) {
  const auto tokenizer = Tokenizer::from_sentencepiece(golden_text("sentencepiece.model"), "t");
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  const Json golden = golden_json("sentencepiece_expected.json");
  const std::vector<std::string> cases = golden_cases();
  for (size_t i = 0; i < golden["cases"].size(); ++i) {
    const std::string& text = cases[golden["cases"][i].get<size_t>()];
    const Ids ids = (*tokenizer)->encode(text, SpecialTokens::kAsText);
    EXPECT_EQ(ids, golden["ids"][i].get<Ids>()) << text;
    EXPECT_EQ((*tokenizer)->decode(ids), golden["decoded"][i].get<std::string>()) << text;
  }
}

TEST(SentencePiece, GgufVocabularyOfTheSamePiecesIsTheSame) {
  const Json golden = golden_json("sentencepiece_expected.json");
  GgufVocabulary gguf;
  gguf.model = "llama";
  gguf.tokens = golden["tokens"].get<std::vector<std::string>>();
  gguf.scores = golden["scores"].get<std::vector<float>>();
  gguf.types = golden["types"].get<std::vector<int32_t>>();
  gguf.bos = 1;
  gguf.eos = 2;
  const auto from_gguf = Tokenizer::from_gguf(gguf);
  ASSERT_TRUE(from_gguf) << from_gguf.error().message;
  const auto tokenizer = Tokenizer::from_sentencepiece(golden_text("sentencepiece.model"), "t");
  for (const std::string& text : golden_cases()) {
    EXPECT_EQ((*from_gguf)->encode_with_template(text, SpecialTokens::kParse),
              (*tokenizer)->encode_with_template(text, SpecialTokens::kParse));
  }
  gguf.add_space_prefix = false;
  const auto without_prefix = Tokenizer::from_gguf(gguf);
  ASSERT_TRUE(without_prefix);
  EXPECT_EQ((*without_prefix)->encode(" mill", SpecialTokens::kParse),
            (*tokenizer)->encode("mill", SpecialTokens::kParse));
}

TEST(SentencePiece, RemovesExtraSpacesWhenTheModelSaysSo) {
  const auto keeps = Tokenizer::from_sentencepiece(model_of(kBpe, varint_field(4, 0)), "t");
  const auto removes = Tokenizer::from_sentencepiece(model_of(kBpe, ""), "t");
  ASSERT_TRUE(keeps) << keeps.error().message;
  ASSERT_TRUE(removes) << removes.error().message;
  EXPECT_EQ((*keeps)->encode(" a  a ", SpecialTokens::kParse), (Ids{1, 1, 2, 1, 1, 2, 1}));
  EXPECT_EQ((*removes)->encode(" a  a ", SpecialTokens::kParse), (Ids{1, 2, 1, 2}));
}

TEST(SentencePiece, RefusesBrokenModels) {
  EXPECT_THAT(error_of(""), HasSubstr("t.model: is no SentencePiece model: it has no pieces"));
  EXPECT_THAT(error_of("\x0A\x7F"), HasSubstr("broken protobuf"));
  EXPECT_THAT(error_of("\x0B"), HasSubstr("broken protobuf")) << "a group";
  EXPECT_THAT(error_of(std::string(1, '\0')), HasSubstr("broken protobuf")) << "field 0";
  EXPECT_THAT(error_of(std::string(11, '\xFF')), HasSubstr("broken protobuf"));
  EXPECT_THAT(error_of(bytes_field(1, "\x0A\x7F")), HasSubstr("piece 0: broken protobuf"));
  EXPECT_THAT(error_of(bytes_field(1, bytes_field(1, "\xFF"))),
              HasSubstr("piece 0 is not valid UTF-8"));
  EXPECT_THAT(error_of(model_of("\x18", "")), HasSubstr("trainer_spec: broken protobuf"));
  EXPECT_THAT(error_of(model_of(kBpe, "\x18")), HasSubstr("normalizer_spec: broken protobuf"));
}

TEST(SentencePiece, RefusesWhatItDoesNotKnow) {
  EXPECT_THAT(error_of(model_of("", "")), HasSubstr("trainer_spec.model_type is 1 (1 unigram"));
  EXPECT_THAT(error_of(model_of(kBpe, bytes_field(2, "map"))), HasSubstr("precompiled_charsmap"));
  EXPECT_THAT(error_of(model_of(kBpe, varint_field(5, 0))), HasSubstr("escape_whitespaces"));
  EXPECT_THAT(error_of(model_of(kBpe + "\xC0\x01\x01", "")), HasSubstr("whitespace_as_suffix"));
}

}  // namespace
}  // namespace quern
