#include "text/tool_grammar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "text/grammar_testing.h"

namespace quern {
namespace {

using ::testing::HasSubstr;

const char kWeather[] = R"({"type":"object","properties":{"city":{"type":"string"}},
                            "required":["city"]})";

ToolGrammarRequest weather(ToolDialect dialect, ParallelCalls calls = ParallelCalls::kOne) {
  return {dialect, {{"get_weather", kWeather}, {"now", ""}}, calls};
}

// Markers of the test vocabulary are told by their ids, all else by bytes.
bool says(const GrammarCompiler& compiler,
          const TokenTrie& trie,
          const ToolGrammarRequest& request,
          std::string_view text) {
  const auto grammar = compiler.tool_calls(request);
  EXPECT_TRUE(grammar) << grammar.error().message;
  if (!grammar) return false;
  GrammarMatcher matcher(*grammar);
  while (!text.empty()) {
    int32_t token = static_cast<uint8_t>(text[0]);
    size_t bytes = 1;
    for (const std::string_view marker : kTestMarkers) {
      if (!text.starts_with(marker) || !trie.special_id(marker)) continue;
      token = *trie.special_id(marker);
      bytes = marker.size();
    }
    if (!matcher.accept(token)) return false;
    text.remove_prefix(bytes);
  }
  return matcher.may_end();
}

bool says(const ToolGrammarRequest& request, std::string_view text) {
  return says(test_compiler(), *test_trie(), request, text);
}

TEST(ToolGrammar, WritesLlama) {
  const auto request = weather(ToolDialect::kLlama3);
  EXPECT_TRUE(says(request, R"({"name": "get_weather", "parameters": {"city": "Ulm"}})"));
  EXPECT_TRUE(says(request, R"({"name": "now", "parameters": {}})"));
  EXPECT_FALSE(says(request, R"({"name": "now", "parameters": {"city": "Ulm"}})"));
  EXPECT_FALSE(says(request, R"({"name": "other", "parameters": {}})"));
}

TEST(ToolGrammar, WritesHermes) {
  const std::string one = "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>";
  const std::string two =
      "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\":\"U\"}}\n</tool_call>";
  EXPECT_TRUE(says(weather(ToolDialect::kHermes), one));
  EXPECT_FALSE(says(weather(ToolDialect::kHermes), one + "\n" + two));
  const auto many = weather(ToolDialect::kHermes, ParallelCalls::kMany);
  EXPECT_TRUE(says(many, one));
  EXPECT_TRUE(says(many, one + "\n" + two));
  EXPECT_FALSE(says(many, one + two));
}

TEST(ToolGrammar, WritesMistralByItsVocabulary) {
  const auto many = weather(ToolDialect::kMistral, ParallelCalls::kMany);
  EXPECT_TRUE(says(many, "[TOOL_CALLS]now[ARGS]{}"));
  EXPECT_TRUE(says(many, "[TOOL_CALLS]now[ARGS]{}[TOOL_CALLS]get_weather[ARGS]{\"city\":\"U\"}"));
  EXPECT_FALSE(says(many, "now[ARGS]{}"));
  TokenTrieSource source = test_vocabulary();
  std::erase_if(source.special, [](const auto& entry) { return entry.first == "[ARGS]"; });
  const auto trie = TokenTrie::build(source);
  const GrammarCompiler older(trie);
  EXPECT_TRUE(says(older, *trie, many, "[TOOL_CALLS][{\"name\": \"now\", \"arguments\": {}}]"));
  EXPECT_TRUE(says(older, *trie, many,
                   "[TOOL_CALLS][{\"name\": \"now\", \"arguments\": {}}, "
                   "{\"name\": \"now\", \"arguments\": {}}]"));
  EXPECT_FALSE(says(older, *trie, many, "[TOOL_CALLS][]"));
}

TEST(ToolGrammar, WritesHarmonyWithOrWithoutAnalysis) {
  const auto request = weather(ToolDialect::kHarmony);
  const std::string call = "<|channel|>commentary to=functions.now <|constrain|>json<|message|>{}";
  EXPECT_TRUE(says(request, call));
  EXPECT_TRUE(
      says(request, "<|channel|>analysis<|message|>Hm \xC3\xA9<|end|><|start|>assistant" + call));
  EXPECT_FALSE(says(request, "<|channel|>final<|message|>{}"));
}

TEST(ToolGrammar, AllowsSpecialTokensOnlyAsMarkers) {
  const auto grammar = test_compiler().tool_calls(weather(ToolDialect::kMistral));
  ASSERT_TRUE(grammar);
  GrammarMatcher matcher(*grammar);
  EXPECT_EQ(allowed_ids(mask_of(matcher)),
            std::vector<int32_t>{*test_trie()->special_id("[TOOL_CALLS]")});
  ASSERT_TRUE(matcher.accept(*test_trie()->special_id("[TOOL_CALLS]")));
  for (const int32_t id : allowed_ids(mask_of(matcher)))
    EXPECT_TRUE(written(id).starts_with('g') || written(id).starts_with('n')) << written(id);
}

TEST(ToolGrammar, NamesWhatIsWrongWithATool) {
  const GrammarCompiler compiler = test_compiler();
  const auto refusal = [&](const ToolGrammarRequest& request) {
    const auto grammar = compiler.tool_calls(request);
    return grammar ? std::string("compiled") : grammar.error().message;
  };
  EXPECT_THAT(refusal({ToolDialect::kHermes, {}, ParallelCalls::kOne}), HasSubstr("at least one"));
  EXPECT_THAT(refusal(weather(ToolDialect::kNone)), HasSubstr("no form for tool calls"));
  EXPECT_THAT(refusal({ToolDialect::kHermes, {{"a b", ""}}, ParallelCalls::kOne}),
              HasSubstr("tools[0].name"));
  EXPECT_THAT(refusal({ToolDialect::kHermes, {{"a", ""}, {"b", "{"}}, ParallelCalls::kOne}),
              HasSubstr("tools[1].parameters"));
  EXPECT_THAT(refusal({ToolDialect::kHermes, {{"a", R"({"not":{}})"}}, ParallelCalls::kOne}),
              HasSubstr("tools[0].parameters: keyword `not` is not supported"));
  EXPECT_THAT(
      refusal({ToolDialect::kHermes, {{"a", std::string(70'000, ' ')}}, ParallelCalls::kOne}),
      HasSubstr("tools[0].parameters: 70000 bytes, at most 65536"));
}

TEST(ToolDialect, IsReadFromTheTemplate) {
  const auto tools = [](std::string_view text) { return detect_dialect(text).tools; };
  EXPECT_EQ(tools("{{ '<|channel|>' }}"), ToolDialect::kHarmony);
  EXPECT_EQ(tools("{{ '[TOOL_CALLS]' }}"), ToolDialect::kMistral);
  EXPECT_EQ(tools("return within <tool_call></tool_call>"), ToolDialect::kHermes);
  EXPECT_EQ(tools("{{ '<|python_tag|>' }}"), ToolDialect::kLlama3);
  EXPECT_EQ(tools("<|start_header_id|> {\"name\": x, \"parameters\": y}"), ToolDialect::kLlama3);
  EXPECT_EQ(tools("{{ messages }}"), ToolDialect::kNone);
}

TEST(ToolDialect, ReadsWhoOpensTheReasoning) {
  const auto reasoning = [](std::string_view text) { return detect_dialect(text).reasoning; };
  EXPECT_EQ(reasoning("plain"), ReasoningStyle::kNone);
  EXPECT_EQ(reasoning("{{ content.split('</think>') }}{% if add_generation_prompt %}x"),
            ReasoningStyle::kThink);
  EXPECT_EQ(reasoning("{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"),
            ReasoningStyle::kThinkOpened);
  EXPECT_EQ(reasoning("{% if add_generation_prompt %}{% if not think %}<think>\n\n</think>"),
            ReasoningStyle::kThink);
  EXPECT_EQ(reasoning("<think>"), ReasoningStyle::kThink);
  EXPECT_TRUE(opens_reasoning("<|im_start|>assistant\n<think>\n"));
  EXPECT_FALSE(opens_reasoning("<think>\n\n</think>\n\n"));
  EXPECT_FALSE(opens_reasoning(" \n"));
}

TEST(ToolDialect, HasNames) {
  for (const ToolDialect dialect : {ToolDialect::kNone, ToolDialect::kLlama3, ToolDialect::kHermes,
                                    ToolDialect::kMistral, ToolDialect::kHarmony}) {
    EXPECT_EQ(tool_dialect_of(name_of(dialect)), dialect);
  }
  EXPECT_EQ(tool_dialect_of("gpt"), std::nullopt);
}

}  // namespace
}  // namespace quern
