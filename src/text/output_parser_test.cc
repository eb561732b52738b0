#include "text/output_parser.h"

#include <gtest/gtest.h>

#include "base/random.h"
#include "text/output_parser_testing.h"

namespace quern {

// For readable failures.
void PrintTo(const OutputDelta& delta, std::ostream* out) {
  const char* kKinds[] = {"content", "reasoning", "begin", "arguments"};
  *out << kKinds[static_cast<size_t>(delta.kind)] << delta.index << "(" << delta.text << delta.id
       << ")";
}

namespace {

using Deltas = std::vector<OutputDelta>;

OutputDelta content(std::string text) { return {OutputKind::kContent, std::move(text), 0, {}}; }
OutputDelta reasoning(std::string text) { return {OutputKind::kReasoning, std::move(text), 0, {}}; }
OutputDelta begin(std::string name, int32_t index = 0, std::string id = {}) {
  return {OutputKind::kToolBegin, std::move(name), index, std::move(id)};
}
OutputDelta arguments(std::string text, int32_t index = 0) {
  return {OutputKind::kToolArguments, std::move(text), index, {}};
}

constexpr OutputDialect kPlain = {};
constexpr OutputDialect kLlama = {ToolDialect::kLlama3, ReasoningStyle::kNone};
constexpr OutputDialect kHermes = {ToolDialect::kHermes, ReasoningStyle::kNone};
constexpr OutputDialect kQwen3 = {ToolDialect::kHermes, ReasoningStyle::kThink};
constexpr OutputDialect kOpened = {ToolDialect::kHermes, ReasoningStyle::kThinkOpened};
constexpr OutputDialect kMistral = {ToolDialect::kMistral, ReasoningStyle::kNone};
constexpr OutputDialect kHarmony = {ToolDialect::kHarmony, ReasoningStyle::kNone};

struct Case {
  const char* name;
  OutputDialect dialect;
  const char* text;
  Deltas expected;
};

const Case kCases[] = {
    {"Text",
     kPlain,
     "Hi <think> [TOOL_CALLS] \xC3\xA9 \n",
     {content("Hi <think> [TOOL_CALLS] \xC3\xA9 \n")}},
    {"Nothing", kHermes, "", {}},
    {"OnlySpace", kHermes, " \n", {content(" \n")}},

    {"HermesCall",
     kHermes,
     "<tool_call>\n{\"name\": \"get\", \"arguments\": {\"city\": \"Ulm }\\\"\", \"n\": [1, {}]}}\n"
     "</tool_call>",
     {begin("get"), arguments("{\"city\": \"Ulm }\\\"\", \"n\": [1, {}]}")}},
    {"HermesTextAndCalls",
     kHermes,
     "Let me look.\n\n<tool_call>{\"name\": \"a\", \"arguments\": {}}</tool_call>\n"
     "<tool_call>\n{\"arguments\": {\"x\": 1}, \"name\": \"b\"}\n</tool_call>\nDone. ",
     {content("Let me look."), begin("a"), arguments("{}"), begin("b", 1),
      arguments("{\"x\": 1}", 1), content("Done. ")}},
    {"HermesWithoutArguments",
     kHermes,
     "<tool_call>{\"name\":\"now\"}</tool_call>",
     {begin("now"), arguments("{}")}},
    {"HermesArgumentsAsText",
     kHermes,
     "<tool_call>{\"name\":\"f\",\"arguments\":\"{\\\"a\\\": 1}\"}</tool_call>",
     {begin("f"), arguments("{\"a\": 1}")}},
    {"HermesEmptyArgumentsAsText",
     kHermes,
     "<tool_call>{\"name\":\"f\",\"arguments\":\"\"}</tool_call>",
     {begin("f"), arguments("{}")}},
    {"HermesIdAndType",
     kHermes,
     "<tool_call>{\"id\":\"c1\",\"type\":\"function\",\"name\":\"f\",\"arguments\":{}}</tool_call>",
     {begin("f", 0, "c1"), arguments("{}")}},
    {"HermesNotJson",
     kHermes,
     "<tool_call>\nI would call it</tool_call>",
     {content("<tool_call>\nI would call it</tool_call>")}},
    {"HermesUnknownKey",
     kHermes,
     "<tool_call>{\"name\":\"f\",\"what\":1}",
     {content("<tool_call>{\"name\":\"f\",\"what\":1}")}},
    {"HermesNameTwice",
     kHermes,
     "<tool_call>{\"name\":\"f\",\"name\":\"g\"}",
     {content("<tool_call>{\"name\":\"f\",\"name\":\"g\"}")}},
    {"HermesArgumentsTwice",
     kHermes,
     "<tool_call>{\"arguments\":{},\"arguments\":{}}",
     {content("<tool_call>{\"arguments\":{},\"arguments\":{}}")}},
    {"HermesNoName",
     kHermes,
     "<tool_call>{\"arguments\": {\"a\": 1}}</tool_call>",
     {content("<tool_call>{\"arguments\": {\"a\": 1}}</tool_call>")}},
    {"HermesEmptyName",
     kHermes,
     "<tool_call>{\"name\": \"\"}",
     {content("<tool_call>{\"name\": \"\"}")}},
    {"HermesBadEscape",
     kHermes,
     "<tool_call>{\"name\": \"\\x\"}",
     {content("<tool_call>{\"name\": \"\\x\"}")}},
    {"HermesNumberAsName",
     kHermes,
     "<tool_call>{\"name\": 1}",
     {content("<tool_call>{\"name\": 1}")}},
    {"HermesNoColon", kHermes, "<tool_call>{\"name\" 1}", {content("<tool_call>{\"name\" 1}")}},
    {"HermesNoComma",
     kHermes,
     "<tool_call>{\"name\":\"a\" \"b\"}",
     {content("<tool_call>{\"name\":\"a\" \"b\"}")}},
    {"HermesSecondTry",
     kHermes,
     "<tool_call><tool_call>{\"name\":\"a\",\"arguments\":{}}</tool_call>",
     {content("<tool_call>"), begin("a"), arguments("{}")}},
    {"HermesCutInArguments",
     kHermes,
     "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"x",
     {begin("f"), arguments("{\"a\": \"x")}},
    {"HermesCutInName",
     kHermes,
     " <tool_call>{\"name\": \"f",
     {content(" <tool_call>{\"name\": \"f")}},
    {"HermesCutInMarker", kHermes, "a <tool_c", {content("a <tool_c")}},
    {"HermesBehindArguments",
     kHermes,
     "<tool_call>{\"name\":\"f\",\"arguments\":{}, oops}</tool_call>",
     {begin("f"), arguments("{}"), content(", oops}</tool_call>")}},
    {"HermesUnclosedTag",
     kHermes,
     "<tool_call>{\"name\":\"f\",\"arguments\":{}}\nand </tool_call>",
     {begin("f"), arguments("{}"), content("and </tool_call>")}},

    {"Think",
     kQwen3,
     "<think>\nHm <tool_call> no.\n</think>\n\nYes.",
     {reasoning("Hm <tool_call> no."), content("Yes.")}},
    {"ThinkEmpty", kQwen3, "<think>\n\n</think>\n\nYes.", {content("Yes.")}},
    {"ThinkThenCall",
     kQwen3,
     "<think>Look</think>\n<tool_call>{\"name\":\"a\",\"arguments\":{}}</tool_call>",
     {reasoning("Look"), begin("a"), arguments("{}")}},
    {"ThinkOnlyAtTheStart", kQwen3, "Tags: <think>x</think>", {content("Tags: <think>x</think>")}},
    {"ThinkOnce",
     kQwen3,
     "<think>a</think><think>b</think>",
     {reasoning("a"), content("<think>b</think>")}},
    {"ThinkCut", kQwen3, "\n<think>a </th", {reasoning("a </th")}},
    {"ThinkAlmost", kQwen3, "<thin air>", {content("<thin air>")}},
    {"ThinkOpened",
     kOpened,
     "\nSo.\n\nYes\n</think>\nAnswer",
     {reasoning("So.\n\nYes"), content("Answer")}},
    {"ThinkOpenedNeverClosed", kOpened, "So on ", {reasoning("So on ")}},

    {"LlamaBare",
     kLlama,
     "{\"name\": \"f\", \"parameters\": {\"a\": 1}}",
     {begin("f"), arguments("{\"a\": 1}")}},
    {"LlamaTagged",
     kLlama,
     "<|python_tag|>{\"name\": \"f\", \"parameters\": {}}",
     {begin("f"), arguments("{}")}},
    {"LlamaFunctionKey",
     kLlama,
     "{\"type\": \"function\", \"function\": \"f\", \"parameters\": {}}",
     {begin("f"), arguments("{}")}},
    {"LlamaMany",
     kLlama,
     "{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"g\", \"parameters\": {}}\n"
     "{\"name\": \"h\", \"parameters\": {}}",
     {begin("f"), arguments("{}"), begin("g", 1), arguments("{}", 1), begin("h", 2),
      arguments("{}", 2)}},
    {"LlamaCode",
     kLlama,
     "<|python_tag|>search.call(query=\"x\")",
     {content("<|python_tag|>search.call(query=\"x\")")}},
    {"LlamaOtherObject", kLlama, "{\"answer\": 42}", {content("{\"answer\": 42}")}},
    {"LlamaNamedObject", kLlama, "{\"name\": \"Bob\"}", {content("{\"name\": \"Bob\"}")}},
    {"LlamaCallThenText",
     kLlama,
     "{\"name\": \"f\", \"parameters\": {}}; so",
     {begin("f"), arguments("{}"), content("; so")}},
    {"LlamaText",
     kLlama,
     "Use {\"name\": \"f\", \"parameters\": {}}",
     {content("Use {\"name\": \"f\", \"parameters\": {}}")}},

    {"MistralList",
     kMistral,
     "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"a\": 1}, \"id\": \"x9\"}, "
     "{\"name\": \"g\", \"arguments\": {}}]",
     {begin("f"), arguments("{\"a\": 1}"), begin("g", 1), arguments("{}", 1)}},
    {"MistralSpaced",
     kMistral,
     "Ok. [TOOL_CALLS] [ {\"name\":\"f\",\"arguments\":{}} ] more",
     {content("Ok."), begin("f"), arguments("{}"), content("more")}},
    {"MistralNamed",
     kMistral,
     "[TOOL_CALLS]f[ARGS]{\"a\": \"}\"}[TOOL_CALLS]g.h-2[ARGS] {}",
     {begin("f"), arguments("{\"a\": \"}\"}"), begin("g.h-2", 1), arguments("{}", 1)}},
    {"MistralCallId",
     kMistral,
     "[TOOL_CALLS]f[CALL_ID]abc123456[ARGS]{}",
     {begin("f", 0, "abc123456"), arguments("{}")}},
    {"MistralNameAlone", kMistral, "[TOOL_CALLS]f{\"a\":1}", {begin("f"), arguments("{\"a\":1}")}},
    {"MistralObject",
     kMistral,
     "[TOOL_CALLS]{\"name\":\"f\",\"arguments\":{}}",
     {begin("f"), arguments("{}")}},
    {"MistralEmptyList", kMistral, "[TOOL_CALLS][]", {content("[TOOL_CALLS][]")}},
    {"MistralWords", kMistral, "[TOOL_CALLS] hello there", {content("[TOOL_CALLS] hello there")}},
    {"MistralBadMarker", kMistral, "[TOOL_CALLS]f[ARGX]{}", {content("[TOOL_CALLS]f[ARGX]{}")}},
    {"MistralBadId",
     kMistral,
     "[TOOL_CALLS]f[CALL_ID]a b[ARGS]{}",
     {content("[TOOL_CALLS]f[CALL_ID]a b[ARGS]{}")}},
    {"MistralNoObject", kMistral, "[TOOL_CALLS]f[ARGS] x", {content("[TOOL_CALLS]f[ARGS] x")}},
    {"MistralPunctuation", kMistral, "[TOOL_CALLS]!", {content("[TOOL_CALLS]!")}},
    {"MistralCut", kMistral, "[TOOL_CALLS]f[AR", {content("[TOOL_CALLS]f[AR")}},
    {"MistralListBroken",
     kMistral,
     "[TOOL_CALLS][{\"name\":\"f\",\"arguments\":{}} x",
     {begin("f"), arguments("{}"), content("x")}},

    {"HarmonyAll",
     kHarmony,
     "<|channel|>analysis<|message|>Think.\n<|end|><|start|>assistant<|channel|>commentary"
     "<|message|>I will look.<|end|><|start|>assistant<|channel|>commentary to=functions.get "
     "<|constrain|>json<|message|>{\"a\": \"b\"}<|call|>",
     {reasoning("Think."), content("I will look."), begin("get"), arguments("{\"a\": \"b\"}")}},
    {"HarmonyFinal",
     kHarmony,
     "<|channel|>analysis<|message|>T<|end|><|start|>assistant<|channel|>final<|message|>Hi "
     "there<|return|>",
     {reasoning("T"), content("Hi there")}},
    {"HarmonyRecipientFirst",
     kHarmony,
     " to=functions.f<|channel|>commentary json<|message|>{}<|call|><|start|>assistant "
     "to=browser.open<|channel|>analysis code<|message|>{\"id\": 1}",
     {begin("f"), arguments("{}"), begin("browser.open", 1), arguments("{\"id\": 1}", 1)}},
    {"HarmonyNoChannel", kHarmony, "<|start|>assistant<|message|>Hi", {content("Hi")}},
    {"HarmonyPlain", kHarmony, "Hello <|chan", {content("Hello <|chan")}},
    {"HarmonyCutInHeader", kHarmony, "<|channel|>anal", {content("<|channel|>anal")}},
    {"HarmonyCutInArguments",
     kHarmony,
     "<|channel|>commentary to=functions.f<|message|>{\"a\": <|en",
     {begin("f"), arguments("{\"a\": <|en")}},
    {"HarmonyWithoutEnd",
     kHarmony,
     "<|channel|>analysis<|message|>T<|start|>assistant<|channel|>final<|message|>A<|channel|>"
     "final<|message|>B",
     {reasoning("T"), content("AB")}},
    {"HarmonyTextBetween", kHarmony, "<|channel|>final<|message|>A<|end|>B", {content("AB")}},
};

class OutputParserDialect : public ::testing::TestWithParam<Case> {};

TEST_P(OutputParserDialect, GivesTheSameForEverySplit) {
  const std::string_view text = GetParam().text;
  ASSERT_EQ(parse_pieces(GetParam().dialect, {text}), GetParam().expected);
  for (size_t i = 0; i <= text.size(); ++i) {
    for (size_t j = i; j <= text.size(); ++j) {
      ASSERT_EQ(parse_pieces(GetParam().dialect,
                             {text.substr(0, i), text.substr(i, j - i), text.substr(j)}),
                GetParam().expected)
          << i << " " << j;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All,
                         OutputParserDialect,
                         ::testing::ValuesIn(kCases),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(OutputParser, GivesTheSameForRandomSplitsOfRandomAnswers) {
  const std::string_view parts[] = {"<tool_call>",
                                    "</tool_call>",
                                    "{\"name\": \"f\", \"arguments\": {",
                                    "}",
                                    "\"",
                                    "\\",
                                    "[",
                                    "]",
                                    "[TOOL_CALLS]",
                                    "[ARGS]",
                                    "{}",
                                    "f",
                                    " ",
                                    "\n",
                                    "<|channel|>",
                                    "analysis",
                                    "commentary to=functions.f ",
                                    "<|message|>",
                                    "<|end|>",
                                    "<|start|>assistant",
                                    "<think>",
                                    "</think>",
                                    "<|python_tag|>",
                                    "{\"name\": \"g\", \"parameters\": {}}",
                                    ";",
                                    ",",
                                    "text"};
  uint64_t drawn = 0;
  const auto below = [&](size_t end) { return random_bits(11, 0, drawn++) % end; };
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (size_t n = below(12); n > 0; --n) text += parts[below(std::size(parts))];
    const OutputDialect dialect = {static_cast<ToolDialect>(below(5)),
                                   static_cast<ReasoningStyle>(below(3))};
    std::vector<std::string_view> pieces;
    for (std::string_view rest = text; !rest.empty();) {
      const size_t bytes = 1 + below(std::min<size_t>(rest.size(), 9));
      pieces.push_back(rest.substr(0, bytes));
      rest.remove_prefix(bytes);
    }
    ASSERT_EQ(parse_pieces(dialect, pieces), parse_pieces(dialect, {text})) << text;
  }
}

TEST(OutputParser, StreamsArgumentsAsTheyCome) {
  OutputParser parser(kHermes);
  EXPECT_EQ(parser.feed("<tool_call>\n{\"name\": \"f\", "), Deltas{});
  EXPECT_EQ(parser.feed("\"arguments\": {\"a"), (Deltas{begin("f"), arguments("{\"a")}));
  EXPECT_EQ(parser.tool_calls(), 1);
  EXPECT_EQ(parser.feed("\": 1"), Deltas{arguments("\": 1")});
  EXPECT_EQ(parser.feed("}}\n</tool_call>"), Deltas{arguments("}")});
  EXPECT_EQ(parser.finish(), Deltas{});
}

TEST(OutputParser, StreamsContentButWhatMayBeAMarker) {
  OutputParser parser(kHermes);
  EXPECT_EQ(parser.feed("Hello <to"), Deltas{content("Hello")});
  EXPECT_EQ(parser.feed("ad>"), Deltas{content(" <toad>")});
  EXPECT_EQ(parser.tool_calls(), 0);
}

TEST(OutputParser, TakesALongHarmonyHeaderAsText) {
  const std::string text = "<|channel|>" + std::string(600, 'x') + "<|message|>y";
  EXPECT_EQ(parse_pieces(kHarmony, {text}), Deltas{content(text)});
}

TEST(OutputParser, TakesALongMistralNameAsText) {
  const std::string text = "[TOOL_CALLS]" + std::string(200, 'x') + "[ARGS]{}";
  EXPECT_EQ(parse_pieces(kMistral, {text}), Deltas{content(text)});
}

}  // namespace
}  // namespace quern
