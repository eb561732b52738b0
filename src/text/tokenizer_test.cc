#include "text/tokenizer.h"

#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "text/detokenizer.h"
#include "text/tokenizer_golden.h"
#include "text/unicode.h"

namespace quern {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Ids = std::vector<int32_t>;

std::unique_ptr<Tokenizer> load(const std::string& name) {
  auto tokenizer = Tokenizer::from_json(golden_text(name + ".json"), name);
  EXPECT_TRUE(tokenizer) << tokenizer.error().message;
  return tokenizer ? std::move(*tokenizer) : nullptr;
}

// A tokenizer.json around these members of the model and of the file.
std::string file(const std::string& model, const std::string& rest = "") {
  return R"({"model": {"type": "BPE", )" + model + "}" + (rest.empty() ? "" : ", " + rest) + "}";
}

constexpr const char* kAbc = R"("vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"])";

std::string error_of(const std::string& json) {
  const auto tokenizer = Tokenizer::from_json(json, "t.json");
  EXPECT_FALSE(tokenizer) << json;
  return tokenizer ? "" : tokenizer.error().message;
}

class Golden : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    tokenizer_ = load(GetParam());
    ASSERT_NE(tokenizer_, nullptr);
    expected_ = golden_json(std::string(GetParam()) + "_expected.json");
  }

  Ids ids(size_t i, const char* key) const {
    const Json& value = expected_[key][i];
    return (value.is_null() ? expected_["ids"][i] : value).get<Ids>();
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  Json expected_;
  std::vector<std::string> cases_ = golden_cases();
};

TEST_P(Golden, EncodesAsHuggingFace) {
  ASSERT_GT(cases_.size(), 200u);
  for (size_t i = 0; i < cases_.size(); ++i) {
    SCOPED_TRACE("case " + std::to_string(i) + ": " + cases_[i]);
    EXPECT_EQ(tokenizer_->encode(cases_[i], SpecialTokens::kParse), ids(i, "ids"));
    EXPECT_EQ(tokenizer_->encode(cases_[i], SpecialTokens::kAsText), ids(i, "ids_special_as_text"));
    EXPECT_EQ(tokenizer_->encode_with_template(cases_[i], SpecialTokens::kParse),
              ids(i, "ids_with_template"));
  }
}

TEST_P(Golden, DecodesAsHuggingFace) {
  for (size_t i = 0; i < cases_.size(); ++i) {
    SCOPED_TRACE("case " + std::to_string(i) + ": " + cases_[i]);
    const auto text = [&](const char* key) {
      const Json& value = expected_[key][i];
      return value.is_null() ? replace_invalid_utf8(cases_[i]) : value.get<std::string>();
    };
    const Ids encoded = ids(i, "ids");
    EXPECT_EQ(replace_invalid_utf8(tokenizer_->decode(encoded)), text("decoded"));
    EXPECT_EQ(replace_invalid_utf8(tokenizer_->decode(encoded, SpecialOutput::kSkip)),
              text("decoded_without_special"));
  }
}

TEST_P(Golden, StreamsWhatItDecodes) {
  for (size_t i = 0; i < cases_.size(); ++i) {
    const Ids encoded = ids(i, "ids");
    for (const TextPosition position : {TextPosition::kStart, TextPosition::kContinuation}) {
      Detokenizer stream(*tokenizer_, position);
      std::string text;
      for (const int32_t id : encoded) {
        const std::string part = stream.push(id);
        EXPECT_TRUE(is_valid_utf8(part)) << "case " << i;
        text += part;
      }
      text += stream.finish();
      EXPECT_EQ(text,
                replace_invalid_utf8(tokenizer_->decode(encoded, SpecialOutput::kSkip, position)))
          << "case " << i;
    }
  }
}

TEST_P(Golden, WritesItselfAsTokenizerJson) {
  const auto copy = Tokenizer::from_json(tokenizer_->to_json(), "copy");
  ASSERT_TRUE(copy) << copy.error().message;
  EXPECT_EQ((*copy)->vocabulary_size(), tokenizer_->vocabulary_size());
  for (int32_t id = 0; id < tokenizer_->vocabulary_size(); ++id) {
    EXPECT_EQ((*copy)->token(id), tokenizer_->token(id));
    EXPECT_EQ((*copy)->token_bytes(id), tokenizer_->token_bytes(id));
    EXPECT_EQ((*copy)->is_special(id), tokenizer_->is_special(id));
  }
  for (size_t i = 0; i < cases_.size(); ++i) {
    EXPECT_EQ((*copy)->encode_with_template(cases_[i], SpecialTokens::kParse),
              ids(i, "ids_with_template"));
  }
}

INSTANTIATE_TEST_SUITE_P(Styles,
                         Golden,
                         ::testing::Values("gpt2",
                                           "roberta",
                                           "llama3",
                                           "qwen",
                                           "o200k",
                                           "smollm",
                                           "llama2",
                                           "metaspace_first",
                                           "metaspace_unknown",
                                           "deepseek",
                                           "falcon",
                                           "flags"),
                         [](const auto& instance) { return std::string(instance.param); });

TEST(Tokenizer, SpecialTokensCountOnlyWithinSegmentsThatMayNameThem) {
  const auto qwen = load("qwen");
  const int32_t start = *qwen->id_of("<|im_start|>");
  const int32_t end = *qwen->id_of("<|im_end|>");
  const auto encode = [&](std::vector<TextSegment> segments) { return qwen->encode(segments); };
  const Ids text = qwen->encode("<|im_end|>", SpecialTokens::kAsText);
  EXPECT_EQ(encode({{"<|im_start|>", SpecialTokens::kParse},
                    {"<|im_end|>", SpecialTokens::kAsText},
                    {"<|im_end|>", SpecialTokens::kParse}}),
            [&] {
              Ids ids = {start};
              ids.insert(ids.end(), text.begin(), text.end());
              ids.push_back(end);
              return ids;
            }());
  // Neither half makes a special token of what crosses the boundary.
  EXPECT_EQ(encode({{"<|im_", SpecialTokens::kParse}, {"end|>", SpecialTokens::kAsText}}), text);
  EXPECT_EQ(encode({{"<|im_", SpecialTokens::kParse}, {"end|>", SpecialTokens::kParse}}), text);
}

TEST(Tokenizer, SegmentsAreEncodedAsOneText) {
  for (const char* style : {"gpt2", "qwen", "llama2"}) {
    const auto tokenizer = load(style);
    const std::vector<TextSegment> segments = {{"The mi", SpecialTokens::kParse},
                                               {"ll gr", SpecialTokens::kAsText},
                                               {"inds gra", SpecialTokens::kParse},
                                               {"in", SpecialTokens::kAsText}};
    EXPECT_EQ(tokenizer->encode(segments),
              tokenizer->encode("The mill grinds grain", SpecialTokens::kParse))
        << style;
  }
}

TEST(Tokenizer, SpecialTokensThatAreNormalizedCountInSegmentsToo) {
  const auto gpt2 = load("gpt2");  // whose <|endoftext|> is sought in normalised text
  const std::vector<TextSegment> segments = {{"<|endoftext|>", SpecialTokens::kAsText},
                                             {"<|endoftext|>", SpecialTokens::kParse}};
  Ids expected = gpt2->encode("<|endoftext|>", SpecialTokens::kAsText);
  expected.push_back(*gpt2->id_of("<|endoftext|>"));
  EXPECT_EQ(gpt2->encode(segments), expected);
}

TEST(Tokenizer, LooksTokensUp) {
  const auto llama = load("llama3");
  EXPECT_EQ(llama->bos_id(), llama->id_of("<|begin_of_text|>"));
  EXPECT_TRUE(llama->is_special(*llama->bos_id()));
  EXPECT_FALSE(llama->is_special(0));
  EXPECT_FALSE(llama->is_special(-1));
  EXPECT_FALSE(llama->is_special(llama->vocabulary_size()));
  EXPECT_EQ(llama->token(*llama->bos_id()), "<|begin_of_text|>");
  EXPECT_EQ(llama->token_bytes(*llama->id_of("Ġthe")), " the");
  EXPECT_EQ(llama->token_bytes(-1), "");
  EXPECT_EQ(llama->token_bytes(llama->vocabulary_size()), "");
  EXPECT_EQ(llama->id_of("no such token"), std::nullopt);
  EXPECT_EQ(llama->decode(Ids{-5, 1 << 30}), "");
}

TEST(Tokenizer, SpaceBeforeTheFirstWordGoesOnlyAtTheStartOfAText) {
  const auto llama = load("llama2");
  const Ids ids = llama->encode("mill", SpecialTokens::kParse);
  EXPECT_EQ(llama->decode(ids), "mill");
  EXPECT_EQ(llama->decode(ids, SpecialOutput::kSkip, TextPosition::kContinuation), " mill");
}

TEST(Tokenizer, TakesTheNamedTokensOfItsConfig) {
  const std::string text =
      file(kAbc, R"("added_tokens": [{"id": 5, "content": "<e>", "special": true}])");
  const auto tokenizer = Tokenizer::from_json(
      text, "t", R"({"bos_token": {"content": "a"}, "eos_token": "<e>", "unk_token": null})");
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ((*tokenizer)->bos_id(), 0);
  EXPECT_THAT((*tokenizer)->eos_ids(), ElementsAre(5));
  EXPECT_EQ((*tokenizer)->vocabulary_size(), 6);
  const Json config = Json::parse((*tokenizer)->to_config_json("{{ x }}"));
  EXPECT_EQ(config["bos_token"], "a");
  EXPECT_EQ(config["eos_token"], "<e>");
  EXPECT_EQ(config["chat_template"], "{{ x }}");
  EXPECT_FALSE(config.contains("pad_token"));
}

TEST(Tokenizer, LongWordsAreEncodedInLessThanQuadraticTime) {
  const auto tokenizer = Tokenizer::from_json(file(kAbc), "t");
  std::string text;
  for (int i = 0; i < 500'000; ++i) text += "ab";
  EXPECT_EQ((*tokenizer)->encode(text, SpecialTokens::kParse), Ids(500'000, 2));
}

TEST(Tokenizer, RefusesAMalformedModel) {
  EXPECT_THAT(error_of("{"), HasSubstr("t.json"));
  EXPECT_THAT(error_of("[]"), HasSubstr("t.json: is array; an object is needed"));
  EXPECT_THAT(error_of("{}"), HasSubstr("t.json: model is null; an object is needed"));
  EXPECT_THAT(error_of(R"({"model": {"type": "Unigram"}})"),
              HasSubstr("model.type is \"Unigram\"; known is \"BPE\""));
  EXPECT_THAT(error_of(R"({"model": {}})"), HasSubstr("model.type is \"none\""));
  EXPECT_THAT(error_of(file(R"("merges": [])")), HasSubstr("model.vocab is null"));
  EXPECT_THAT(error_of(file(R"("vocab": {"a": "x"}, "merges": [])")),
              HasSubstr("model.vocab[\"a\"] is \"x\"; a token id is needed"));
  EXPECT_THAT(error_of(file(R"("vocab": {"a": -1}, "merges": [])")), HasSubstr("token id -1"));
  EXPECT_THAT(error_of(file(R"("vocab": {"a": 18446744073709551615}, "merges": [])")),
              HasSubstr("is outside"));
  EXPECT_THAT(error_of(file(R"("vocab": {"a": 0, "b": 0}, "merges": [])")),
              HasSubstr("token id 0 is given twice"));
  EXPECT_THAT(error_of(file(R"("vocab": {"a": 0})")), HasSubstr("model.merges is null; a list"));
  EXPECT_THAT(error_of(file(std::string(kAbc) + R"(, "dropout": 0.1)")),
              HasSubstr("model.dropout is 0.1"));
  EXPECT_THAT(error_of(file(std::string(kAbc) + R"(, "unk_token": "<unk>")")),
              HasSubstr("model.unk_token \"<unk>\" is not in the vocabulary"));
  EXPECT_THAT(error_of(file(std::string(kAbc) + R"(, "fuse_unk": 1)")), HasSubstr("fuse_unk"));
}

TEST(Tokenizer, RefusesMalformedMerges) {
  const auto merges = [](const std::string& list) {
    return error_of(file(R"("vocab": {"a": 0, "b": 1}, "merges": )" + list));
  };
  for (const char* merge :
       {"\"a\"", "\"a b c\"", "\" a\"", "[\"a\"]", "[\"a\", 1]", "7", "[\"a\",\"\"]"})
    EXPECT_THAT(merges("[" + std::string(merge) + "]"), HasSubstr("model.merges[0] is")) << merge;
  EXPECT_THAT(merges(R"(["a b"])"), HasSubstr("with its result, in the vocabulary"));
  EXPECT_THAT(merges(R"([["a", "x"]])"), HasSubstr("with its result, in the vocabulary"));
}

TEST(Tokenizer, RefusesMalformedAddedTokens) {
  const auto added = [](const std::string& list) {
    return error_of(file(kAbc, "\"added_tokens\": " + list));
  };
  EXPECT_THAT(added("3"), HasSubstr("added_tokens is 3; a list"));
  EXPECT_THAT(added("[3]"), HasSubstr("added_tokens[0] is 3; an object"));
  EXPECT_THAT(added(R"([{"content": "x"}])"), HasSubstr("id"));
  EXPECT_THAT(added(R"([{"id": 9}])"), HasSubstr("content"));
  EXPECT_THAT(added(R"([{"id": 4194304, "content": "x"}])"), HasSubstr("id"));
  EXPECT_THAT(added(R"([{"id": 9, "content": ")" + std::string(1025, 'x') + "\"}]"),
              HasSubstr("added token 9 has 1025 bytes"));
}

TEST(Tokenizer, RefusesMalformedPostProcessors) {
  const auto post = [](const std::string& json) {
    return error_of(file(kAbc, "\"post_processor\": " + json));
  };
  EXPECT_THAT(post(R"({"type": "Magic"})"), HasSubstr("known are TemplateProcessing"));
  EXPECT_THAT(post(R"({"type": "TemplateProcessing"})"), HasSubstr("without a list \"single\""));
  EXPECT_THAT(post(R"({"type": "TemplateProcessing", "single": []})"),
              HasSubstr("holds the text 0 times"));
  EXPECT_THAT(post(R"({"type": "TemplateProcessing", "single": [{}]})"),
              HasSubstr("neither Sequence nor SpecialToken"));
  EXPECT_THAT(post(R"({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x"}}]})"),
              HasSubstr("special_tokens has no ids of \"x\""));
  EXPECT_THAT(post(R"({"type": "TemplateProcessing", "single": [{"SpecialToken": 1}]})"),
              HasSubstr("SpecialToken is no object"));
  EXPECT_THAT(post(R"({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x"}}],
                       "special_tokens": {"x": {"ids": [-1]}}})"),
              HasSubstr("token id -1 is outside"));
  EXPECT_THAT(post(R"({"type": "BertProcessing", "cls": 1})"), HasSubstr("\"cls\" needs to be"));
}

TEST(Tokenizer, RefusesMalformedDecoders) {
  const auto decoder = [](const std::string& json) {
    return error_of(file(kAbc, "\"decoder\": " + json));
  };
  EXPECT_THAT(decoder(R"({"type": "CTC"})"), HasSubstr("type \"CTC\" is not known; known are"));
  EXPECT_THAT(decoder(R"({"type": "Sequence", "decoders": [{"type": "ByteLevel"},
                          {"type": "Replace"}]})"),
              HasSubstr("\"Replace\" behind a step that makes bytes"));
  EXPECT_THAT(decoder(R"({"type": "Sequence", "decoders": [{"type": "Fuse"},
                          {"type": "Strip", "content": " ", "start": 0, "stop": 1}]})"),
              HasSubstr("\"Strip\" at the end"));
  EXPECT_THAT(decoder(R"({"type": "Strip", "content": "", "start": 1, "stop": 0})"),
              HasSubstr("\"content\" is \"\"; one character"));
}

TEST(Tokenizer, RefusesAMalformedConfig) {
  const auto config_error = [](const std::string& config) {
    return Tokenizer::from_json(file(kAbc), "t", config).error().message;
  };
  EXPECT_THAT(config_error("["), HasSubstr("tokenizer_config.json"));
  EXPECT_THAT(config_error("[]"), HasSubstr("an object is needed"));
  EXPECT_THAT(config_error(R"({"bos_token": 3})"), HasSubstr("bos_token"));
}

class Directory : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = std::filesystem::path(::testing::TempDir()) /
            ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }

  void TearDown() override { std::filesystem::remove_all(path_); }

  void put(const std::string& name, std::string_view text) { write_file(path_ / name, text); }

  std::string error() const {
    const auto tokenizer = Tokenizer::from_directory(path_);
    EXPECT_FALSE(tokenizer);
    return tokenizer ? "" : tokenizer.error().message;
  }

  std::filesystem::path path_;
};

TEST_F(Directory, ReadsTokenizerJsonAndItsConfigs) {
  put("tokenizer.json", golden_text("llama3.json"));
  put("tokenizer_config.json", R"({"eos_token": "<|eot_id|>"})");
  put("generation_config.json", R"({"eos_token_id": [1, 2]})");
  const auto tokenizer = Tokenizer::from_directory(path_);
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_THAT((*tokenizer)->eos_ids(), ElementsAre(*(*tokenizer)->id_of("<|eot_id|>"), 1, 2));
}

TEST_F(Directory, RefusesABadGenerationConfig) {
  put("tokenizer.json", file(kAbc));
  put("generation_config.json", R"({"eos_token_id": "x"})");
  EXPECT_THAT(error(), HasSubstr("eos_token_id is \"x\"; a token id is needed"));
}

TEST_F(Directory, ReadsTokenizerModel) {
  put("tokenizer.model", golden_text("sentencepiece.model"));
  ASSERT_TRUE(Tokenizer::from_directory(path_));
}

TEST_F(Directory, TellsTiktokenFromSentencePiece) {
  put("tokenizer.model", "IQ== 0\n");
  EXPECT_THAT(error(), HasSubstr("is no tiktoken file"));
  std::filesystem::remove(path_ / "tokenizer.model");
  put("vocabulary.tiktoken", "IQ== 0\n");
  EXPECT_THAT(error(), HasSubstr("vocabulary.tiktoken: is no tiktoken file"));
}

TEST_F(Directory, WithoutATokenizerSaysWhatItLooksFor) {
  EXPECT_THAT(error(), HasSubstr("neither tokenizer.json nor tokenizer.model"));
}

}  // namespace
}  // namespace quern
