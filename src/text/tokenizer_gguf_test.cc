#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "text/tokenizer.h"
#include "text/tokenizer_golden.h"

namespace quern {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Ids = std::vector<int32_t>;

constexpr int32_t kNormal = 1, kControl = 3, kUserDefined = 4;

// What a conversion to GGUF makes of a byte-level tokenizer.json.
GgufVocabulary gguf_of(const std::string& name, const std::string& pre) {
  const Json json = golden_json(name + ".json");
  GgufVocabulary gguf;
  gguf.source = name + ".gguf";
  gguf.model = "gpt2";
  gguf.pre = pre;
  size_t size = json["model"]["vocab"].size();
  for (const Json& added : json["added_tokens"])
    size = std::max(size, added["id"].get<size_t>() + 1);
  gguf.tokens.resize(size);
  gguf.types.assign(size, kNormal);
  for (const auto& [token, id] : json["model"]["vocab"].items())
    gguf.tokens[id.get<size_t>()] = token;
  for (const Json& added : json["added_tokens"]) {
    const auto id = added["id"].get<size_t>();
    gguf.tokens[id] = added["content"];
    gguf.types[id] = added["special"].get<bool>() ? kControl : kUserDefined;
  }
  for (const Json& merge : json["model"]["merges"])
    gguf.merges.push_back(merge[0].get<std::string>() + " " + merge[1].get<std::string>());
  return gguf;
}

std::string error_of(const GgufVocabulary& gguf) {
  const auto tokenizer = Tokenizer::from_gguf(gguf);
  EXPECT_FALSE(tokenizer);
  return tokenizer ? "" : tokenizer.error().message;
}

TEST(Gguf, PretokenizerNamesGiveTheIdsOfTheirTokenizerJson) {
  const std::map<std::string, std::string> pres = {{"gpt2", "gpt-2"},
                                                   {"llama3", "llama-bpe"},
                                                   {"qwen", "qwen2"},
                                                   {"o200k", "gpt-4o"},
                                                   {"smollm", "smollm"}};
  const std::vector<std::string> cases = golden_cases();
  for (const auto& [name, pre] : pres) {
    const auto tokenizer = Tokenizer::from_gguf(gguf_of(name, pre));
    ASSERT_TRUE(tokenizer) << tokenizer.error().message;
    const Json golden = golden_json(name + "_expected.json");
    for (size_t i = 0; i < cases.size(); ++i) {
      EXPECT_EQ((*tokenizer)->encode(cases[i], SpecialTokens::kParse), golden["ids"][i].get<Ids>())
          << name << ": " << cases[i];
    }
  }
}

TEST(Gguf, EndsAtItsEosAndAtKnownEndsOfTurns) {
  GgufVocabulary gguf = gguf_of("qwen", "qwen2");
  const auto id = [&](const char* token) {
    return static_cast<int32_t>(std::find(gguf.tokens.begin(), gguf.tokens.end(), token) -
                                gguf.tokens.begin());
  };
  gguf.eos = id("<|im_end|>");
  gguf.bos = id("<|endoftext|>");
  EXPECT_THAT((*Tokenizer::from_gguf(gguf))->eos_ids(),
              ElementsAre(id("<|im_end|>"), id("<|endoftext|>")));
  EXPECT_EQ((*Tokenizer::from_gguf(gguf))->bos_id(), gguf.bos);
}

TEST(Gguf, PutsBosAndEosWhereItSays) {
  GgufVocabulary gguf = gguf_of("llama3", "llama-bpe");
  gguf.bos = 0;
  gguf.eos = 1;
  const auto around = [&] {
    return (*Tokenizer::from_gguf(gguf))->encode_with_template("", SpecialTokens::kParse);
  };
  EXPECT_EQ(around(), (Ids{0})) << "the default of llama-bpe";
  gguf.add_bos = false;
  EXPECT_EQ(around(), Ids{});
  gguf.add_eos = true;
  EXPECT_EQ(around(), (Ids{1}));
}

TEST(Gguf, RefusesMalformedVocabularies) {
  const GgufVocabulary good = gguf_of("gpt2", "");
  ASSERT_TRUE(Tokenizer::from_gguf(good));
  const auto with = [&](auto change) {
    GgufVocabulary gguf = good;
    change(gguf);
    return error_of(gguf);
  };
  EXPECT_THAT(with([](auto& g) { g.tokens.clear(); }),
              HasSubstr("gpt2.gguf: tokenizer.ggml.tokens is empty"));
  EXPECT_THAT(with([](auto& g) { g.types.pop_back(); }),
              HasSubstr("tokenizer.ggml.token_type has"));
  EXPECT_THAT(with([](auto& g) { g.scores = {1.0f}; }), HasSubstr("tokenizer.ggml.scores has 1"));
  EXPECT_THAT(with([](auto& g) { g.tokens[3] = "\xFF"; }),
              HasSubstr("tokenizer.ggml.tokens[3] is not valid UTF-8"));
  EXPECT_THAT(with([](auto& g) { g.tokens[3] = std::string(70'000, 'a'); }),
              HasSubstr("token 3 has 70000 bytes"));
  EXPECT_THAT(with([](auto& g) { g.model = "bert"; }),
              HasSubstr("tokenizer.ggml.model \"bert\" is not known; known are gpt2, llama"));
  EXPECT_THAT(with([](auto& g) { g.model = "llama"; }),
              HasSubstr("tokenizer.ggml.scores is missing"));
  EXPECT_THAT(with([](auto& g) { g.pre = "magic"; }),
              HasSubstr("tokenizer.ggml.pre \"magic\" is not known; known are default, gpt-2"));
  EXPECT_THAT(with([](auto& g) { g.merges[0] = "a"; }),
              HasSubstr("tokenizer.ggml.merges[0] is \"a\""));
  EXPECT_THAT(with([](auto& g) { g.merges[0] = "no such"; }),
              HasSubstr("tokenizer.ggml.merges[0] is \"no such\""));
  EXPECT_THAT(with([](auto& g) { g.bos = 1 << 20; }),
              HasSubstr("tokenizer.ggml.bos_token_id is 1048576"));
  EXPECT_THAT(with([](auto& g) { g.eos = -1; }), HasSubstr("tokenizer.ggml.eos_token_id is -1"));
}

// The metadata of a well-formed GGUF file (version 3), as far as a tokenizer needs it.
class GgufMetadata {
 public:
  explicit GgufMetadata(std::span<const std::byte> bytes) : bytes_(bytes) {
    at_ = 16;  // magic, version, number of tensors
    const auto count = read<uint64_t>();
    for (uint64_t i = 0; i < count; ++i) {
      const std::string key = string();
      value(key, read<uint32_t>());
    }
  }

  std::map<std::string, std::vector<std::string>> strings;
  std::map<std::string, std::vector<int32_t>> integers;

 private:
  template <typename T>
  T read() {
    T result;
    EXPECT_LE(at_ + sizeof(T), bytes_.size());
    std::memcpy(&result, bytes_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return result;
  }

  std::string string() {
    const auto length = read<uint64_t>();
    std::string text(reinterpret_cast<const char*>(bytes_.data()) + at_, length);
    at_ += length;
    return text;
  }

  void value(const std::string& key, uint32_t type) {
    constexpr size_t kSizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    constexpr uint32_t kString = 8, kArray = 9;
    if (type == kString) {
      strings[key].push_back(string());
    } else if (type == kArray) {
      const auto element = read<uint32_t>();
      const auto count = read<uint64_t>();
      for (uint64_t i = 0; i < count; ++i) value(key, element);
    } else if (kSizes[type] == 4) {
      integers[key].push_back(read<int32_t>());
    } else {
      at_ += kSizes[type];
    }
  }

  std::span<const std::byte> bytes_;
  size_t at_ = 0;
};

class RealModel : public ::testing::TestWithParam<const char*> {};

// Needs the models themselves: QUERN_MODELS names the folder that holds NAME/*.gguf.
TEST_P(RealModel, EncodesAsHuggingFace) {
  const char* models = std::getenv("QUERN_MODELS");
  if (models == nullptr) GTEST_SKIP() << "QUERN_MODELS is not set";
  const std::filesystem::path folder = std::filesystem::path(models) / GetParam();
  if (!std::filesystem::is_directory(folder)) GTEST_SKIP() << folder << " is not there";
  std::filesystem::path path;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().extension() == ".gguf") path = entry.path();
  if (path.empty()) GTEST_SKIP() << folder << " holds no GGUF file";
  const auto file = MappedFile::open(path);
  ASSERT_TRUE(file) << file.error().message;
  const GgufMetadata metadata(file->bytes());
  GgufVocabulary gguf;
  gguf.model = metadata.strings.at("tokenizer.ggml.model").front();
  gguf.pre = metadata.strings.at("tokenizer.ggml.pre").front();
  gguf.tokens = metadata.strings.at("tokenizer.ggml.tokens");
  gguf.types = metadata.integers.at("tokenizer.ggml.token_type");
  gguf.merges = metadata.strings.at("tokenizer.ggml.merges");
  const auto tokenizer = Tokenizer::from_gguf(gguf);
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  const Json golden = golden_json(std::string(GetParam()) + "_expected.json");
  const std::vector<std::string> cases = golden_cases();
  for (size_t i = 0; i < cases.size(); ++i) {
    const Ids ids = golden["ids"][i].get<Ids>();
    const Json& as_text = golden["ids_special_as_text"][i];
    EXPECT_EQ((*tokenizer)->encode(cases[i], SpecialTokens::kParse), ids) << cases[i];
    EXPECT_EQ((*tokenizer)->encode(cases[i], SpecialTokens::kAsText),
              as_text.is_null() ? ids : as_text.get<Ids>())
        << cases[i];
  }
}

INSTANTIATE_TEST_SUITE_P(Catalogue,
                         RealModel,
                         ::testing::Values("smollm2-135m", "qwen2.5-coder-1.5b"),
                         [](const auto& instance) {
                           return std::string(instance.param).substr(0, 4);
                         });

}  // namespace
}  // namespace quern
