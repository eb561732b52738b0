#include "load/workload.h"

#include <filesystem>
#include <fstream>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quern {
namespace {

using nlohmann::json;
using testing::HasSubstr;

WorkloadOptions options_with(uint64_t seed = 1) {
  WorkloadOptions options;
  options.model = "m";
  options.input_tokens = LengthDistribution::fixed(40);
  options.output_tokens = LengthDistribution::fixed(16);
  options.seed = seed;
  return options;
}

Workload make(WorkloadOptions options, WordTokens words = WordTokens::estimate(1)) {
  Result<Workload> workload = Workload::make(std::move(options), std::move(words));
  if (!workload) throw std::runtime_error(workload.error().message);
  return *std::move(workload);
}

std::string error_of(WorkloadOptions options) {
  const Result<Workload> workload = Workload::make(std::move(options), WordTokens::estimate(1));
  return workload ? "" : workload.error().message;
}

std::string prompt_of(const PlannedRequest& request) {
  return json::parse(request.body)["messages"][0]["content"];
}

int64_t words_in(const std::string& text) { return 1 + std::count(text.begin(), text.end(), ' '); }

TEST(Workload, AsksForAStreamWithUsage) {
  WorkloadOptions options = options_with();
  options.ignore_eos = true;
  options.continuous_usage = true;
  options.temperature = 0.5;
  options.extra = {{"top_p", 0.9}, {"temperature", 1}};
  const json body = json::parse(make(options).request(0).body);
  EXPECT_EQ(body["model"], "m");
  EXPECT_EQ(body["stream"], true);
  EXPECT_EQ(body["stream_options"],
            (json{{"include_usage", true}, {"continuous_usage_stats", true}}));
  EXPECT_EQ(body["max_tokens"], 16);
  EXPECT_EQ(body["ignore_eos"], true);
  EXPECT_EQ(body["top_p"], 0.9);
  EXPECT_EQ(body["temperature"], 1);
  const json plain = json::parse(make(options_with()).request(0).body);
  EXPECT_FALSE(plain.contains("ignore_eos"));
  EXPECT_FALSE(plain.contains("temperature"));
}

TEST(Workload, MakesPromptsOfTheWantedTokens) {
  EXPECT_EQ(words_in(prompt_of(make(options_with()).request(3))), 40);
  // Two tokens a word: 20 words.
  const Workload doubled = make(options_with(), WordTokens::estimate(2));
  EXPECT_EQ(words_in(prompt_of(doubled.request(3))), 20);
  // The template takes some.
  WordTokens words = WordTokens::estimate(1);
  words.template_tokens = 30;
  EXPECT_EQ(words_in(prompt_of(make(options_with(), words).request(3))), 10);
  words.template_tokens = 500;
  EXPECT_EQ(words_in(prompt_of(make(options_with(), words).request(3))), 1);
}

TEST(Workload, FillsUpWithWordsThatFit) {
  WordTokens words;
  int64_t total = 0;
  for (const std::string_view word : prompt_words()) {
    words.tokens.push_back(static_cast<double>(word.size()) + 1);  // a token a byte
  }
  for (uint64_t i = 0; i < 20; ++i) {
    RandomStream random(1, RandomPurpose::kWords, i);
    const std::string text = random_text(100, words, random);
    EXPECT_LE(text.size() + 1, 100u);
    EXPECT_GE(text.size() + 1, 99u);  // the shortest word is two bytes with its space
    total += static_cast<int64_t>(text.size());
  }
  EXPECT_GT(total, 0);
}

TEST(Workload, GivesTheSameRequestForTheSameIndexInAnyOrder) {
  WorkloadOptions options = options_with();
  options.input_tokens = *LengthDistribution::parse("uniform(5,50)", "");
  options.output_tokens = *LengthDistribution::parse("uniform(5,50)", "");
  options.disconnect_fraction = 0.3;
  options.hostile_fraction = 0.3;
  const Workload first = make(options), second = make(options);
  options.seed = 2;
  const Workload other = make(options);
  std::set<std::string> bodies;
  for (uint64_t i = 0; i < 50; ++i) {
    const PlannedRequest request = first.request(49 - i);
    const PlannedRequest same = second.request(49 - i);
    EXPECT_EQ(request.body, same.body);
    EXPECT_EQ(request.behaviour, same.behaviour);
    EXPECT_EQ(request.disconnect_after, same.disconnect_after);
    bodies.insert(request.body);
  }
  EXPECT_GT(bodies.size(), 30u);
  EXPECT_NE(first.request(0).body, other.request(0).body);
}

TEST(Workload, SharesThePrefixAlone) {
  WorkloadOptions options = options_with();
  options.prefix_tokens = 10;
  const Workload workload = make(options);
  const std::string first = prompt_of(workload.request(0)), second = prompt_of(workload.request(1));
  EXPECT_EQ(words_in(first), 50);
  size_t place = 0;
  for (int i = 0; i < 10; ++i) place = first.find(' ', place) + 1;
  EXPECT_EQ(first.substr(0, place), second.substr(0, place));
  EXPECT_NE(first.substr(place), second.substr(place));
}

TEST(Workload, AsksForCompletionsOfText) {
  WorkloadOptions options = options_with();
  options.endpoint = LoadEndpoint::kCompletions;
  const json body = json::parse(make(options).request(0).body);
  EXPECT_EQ(words_in(body["prompt"]), 40);
  EXPECT_FALSE(body.contains("messages"));
}

TEST(Workload, MisbehavesAsOftenAsAsked) {
  WorkloadOptions options = options_with();
  options.disconnect_fraction = 0.2;
  options.hostile_fraction = 0.3;
  const Workload workload = make(options);
  std::map<Behaviour, int> counts;
  std::set<std::string> hostile;
  std::set<int64_t> after;
  for (uint64_t i = 0; i < 4000; ++i) {
    const PlannedRequest request = workload.request(i);
    ++counts[request.behaviour];
    if (request.behaviour == Behaviour::kHostile) hostile.insert(request.what);
    if (request.behaviour == Behaviour::kDisconnect) after.insert(request.disconnect_after);
  }
  EXPECT_NEAR(counts[Behaviour::kDisconnect], 800, 5 * 25.3);
  EXPECT_NEAR(counts[Behaviour::kHostile], 1200, 5 * 29);
  EXPECT_EQ(hostile.size(), 10u);
  EXPECT_EQ(after.size(), 16u);
  EXPECT_EQ(*after.begin(), 0);
}

TEST(Workload, RefusesWhatContradictsItself) {
  WorkloadOptions options = options_with();
  options.hostile_fraction = 0.6;
  options.disconnect_fraction = 0.6;
  EXPECT_THAT(error_of(options), HasSubstr("--hostile-fraction 0.6"));
  options = options_with();
  options.disconnect_fraction = -1;
  EXPECT_THAT(error_of(options), HasSubstr("--disconnect-fraction -1"));
  options = options_with();
  options.extra = 5;
  EXPECT_THAT(error_of(options), HasSubstr("--extra-body"));
  options = options_with();
  options.prefix_tokens = -1;
  EXPECT_THAT(error_of(options), HasSubstr("--prefix-tokens is -1"));
  options = options_with();
  options.endpoint = LoadEndpoint::kCompletions;
  options.prompts.push_back({.messages = json::array({{{"role", "user"}, {"content", "a"}}})});
  EXPECT_THAT(error_of(options), HasSubstr("/v1/completions does not take"));
  options.endpoint = LoadEndpoint::kChat;
  options.prefix_tokens = 5;
  EXPECT_THAT(error_of(options), HasSubstr("--prefix-tokens adds nothing"));
}

TEST(Endpoint, HasTwoNames) {
  EXPECT_STREQ(endpoint_path(*parse_endpoint("chat")), "/v1/chat/completions");
  EXPECT_STREQ(endpoint_path(*parse_endpoint("/v1/completions")), "/v1/completions");
  EXPECT_FALSE(parse_endpoint("/v1/embeddings"));
}

class PromptsFile : public testing::Test {
 protected:
  Result<std::vector<PromptLine>> read(const std::string& text) {
    std::ofstream(path_) << text;
    return read_prompts_file(path_);
  }

  std::string error(const std::string& text) {
    const Result<std::vector<PromptLine>> prompts = read(text);
    return prompts ? "" : prompts.error().message;
  }

  ~PromptsFile() override { std::filesystem::remove(path_); }

  const std::string path_ = testing::TempDir() + "prompts-" +
                            testing::UnitTest::GetInstance()->current_test_info()->name();
};

TEST_F(PromptsFile, HoldsTextConversationsAndLengths) {
  const auto prompts = read(
      "\"plain\"\n\n{\"prompt\": \"text\", \"output_tokens\": 7}\r\n"
      R"({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9})"
      "\n"
      R"({"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "q"}, )"
      R"({"from": "gpt", "value": "a"}]})");
  ASSERT_TRUE(prompts) << prompts.error().message;
  ASSERT_EQ(prompts->size(), 4u);
  EXPECT_EQ((*prompts)[0].text, "plain");
  EXPECT_FALSE((*prompts)[0].output_tokens);
  EXPECT_EQ((*prompts)[1].text, "text");
  EXPECT_EQ((*prompts)[1].output_tokens, 7);
  EXPECT_EQ((*prompts)[2].messages[0]["content"], "hi");
  EXPECT_EQ((*prompts)[2].output_tokens, 9);
  ASSERT_EQ((*prompts)[3].messages.size(), 2u);
  EXPECT_EQ((*prompts)[3].messages[1]["role"], "user");
}

TEST_F(PromptsFile, NamesTheLineThatIsWrong) {
  EXPECT_THAT(error("\"a\"\n{"), HasSubstr("line 2"));
  EXPECT_THAT(error("5"), HasSubstr("neither a string nor an object"));
  EXPECT_THAT(error("{}"), HasSubstr("\"prompt\" is missing"));
  EXPECT_THAT(error(R"({"prompt":"a","output_tokens":0})"), HasSubstr("\"output_tokens\" is 0"));
  EXPECT_THAT(error(R"({"messages":[]})"), HasSubstr("no list with turns"));
  EXPECT_THAT(error(R"({"messages":[{"role":"user"}]})"), HasSubstr("no \"content\""));
  EXPECT_THAT(error(R"({"conversations":5})"), HasSubstr("no list"));
  EXPECT_THAT(error(R"({"conversations":[{"from":"human"}]})"), HasSubstr("no text"));
  EXPECT_THAT(error(R"({"conversations":[{"from":"gpt","value":"a"}]})"), HasSubstr("no turn"));
  EXPECT_THAT(error("\n\n"), HasSubstr("no prompt in it"));
  EXPECT_FALSE(read_prompts_file("/nowhere/prompts.jsonl"));
}

TEST_F(PromptsFile, GivesItsLinesInTurn) {
  WorkloadOptions options = options_with();
  options.prompts = *read("\"a\"\n{\"prompt\":\"b\",\"output_tokens\":3}\n");
  const Workload workload = make(options);
  EXPECT_EQ(prompt_of(workload.request(0)), "a");
  EXPECT_EQ(prompt_of(workload.request(1)), "b");
  EXPECT_EQ(prompt_of(workload.request(2)), "a");
  EXPECT_EQ(workload.request(1).output_tokens, 3);
  EXPECT_EQ(workload.request(2).output_tokens, 16);
}

}  // namespace
}  // namespace quern
