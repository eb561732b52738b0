// Forms that answers are held to: which texts they allow.
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "serve/api_grammars.h"
#include "serve/api_test_support.h"

namespace quern {
namespace {

using testing::HasSubstr;

constexpr const char* kChat = "/v1/chat/completions";

std::string chat_body(const std::string& more) {
  return R"({"messages":[{"role":"user","content":"hi"}],)" + more + "}";
}

// Whether the constraint allows the text as a whole answer. Tokens are bytes.
bool allows(TokenConstraint& constraint, std::string_view text) {
  std::vector<uint32_t> mask((259 + 31) / 32);
  const auto allowed = [&](int32_t token) {
    constraint.fill_mask(mask);
    return (mask[static_cast<size_t>(token / 32)] >> (token % 32) & 1) != 0;
  };
  for (const char c : text) {
    const int32_t token = 2 + static_cast<unsigned char>(c);
    if (constraint.ended() || !allowed(token)) return false;
    constraint.accept(token);
  }
  return constraint.ended() || allowed(1);
}

bool allows(const TestModel& model,
            const std::string& path,
            const std::string& body,
            std::string_view text) {
  const Request request = only_request(model, path, body);
  EXPECT_NE(request.constraint, nullptr) << body;
  return request.constraint && allows(*request.constraint, text);
}

struct Form {
  const char* members;
  const char* right;
  const char* wrong;
};

constexpr Form kForms[] = {
    {R"("response_format":{"type":"json_object"})", R"({"a": [1]})", "[1]"},
    {R"("response_format":{"type":"json_schema","json_schema":{"name":"n","strict":true,"schema":
       {"type":"object","properties":{"a":{"type":"integer"}},"required":["a"],
        "additionalProperties":false}}})",
     R"({"a": 3})", R"({"a": "3"})"},
    {R"("response_format":{"type":"json_schema","json_schema":{"name":"n"}})", "{}", "1"},
    {R"("structured_outputs":{"json":{"enum":["x"]}})", R"("x")", R"("y")"},
    {R"("structured_outputs":{"json":"{\"enum\":[\"x\"]}"})", R"("x")", R"("y")"},
    {R"("structured_outputs":{"regex":"a+b"})", "aab", "b"},
    {R"("structured_outputs":{"choice":["a.c","é|(["]})", "é|([", "abc"},
    {R"("structured_outputs":{"grammar":"root ::= \"ab\" | \"cd\""})", "cd", "ad"},
    {R"("structured_outputs":{"json_object":true})", "{}", "[]"},
    {R"("guided_json":{"enum":["x"]})", R"("x")", R"("y")"},
    {R"("guided_regex":"[0-9]{2}")", "42", "4"},
    {R"("guided_choice":["yes","no"])", "no", "nope"},
    {R"("guided_grammar":"root ::= \"ab\"")", "ab", "a"},
};

TEST(ApiConstraint, HoldsAnswersToTheirForm) {
  const TestModel model;
  for (const Form& form : kForms) {
    EXPECT_TRUE(allows(model, kChat, chat_body(form.members), form.right)) << form.members;
    EXPECT_FALSE(allows(model, kChat, chat_body(form.members), form.wrong)) << form.members;
  }
}

TEST(ApiConstraint, HoldsTextsAndResponsesToo) {
  const TestModel model;
  EXPECT_TRUE(allows(model, "/v1/completions", R"({"prompt":"a","guided_regex":"x"})", "x"));
  const std::string format =
      R"({"input":"a","text":{"format":{"type":"json_schema","name":"n","schema":{"enum":[7]}}}})";
  EXPECT_TRUE(allows(model, "/v1/responses", format, "7"));
  EXPECT_FALSE(allows(model, "/v1/responses", format, "8"));
  const std::string config =
      R"({"max_tokens":9,"messages":[{"role":"user","content":"a"}],"output_config":
          {"format":{"type":"json_schema","schema":{"enum":[7]}},"effort":"low"}})";
  EXPECT_TRUE(allows(model, "/v1/messages", config, "7"));
  EXPECT_FALSE(allows(model, "/v1/messages", config, "8"));
}

TEST(ApiConstraint, FreeTextHasNone) {
  const TestModel model;
  const Request request =
      only_request(model, kChat, chat_body(R"("response_format":{"type":"text"})"));
  EXPECT_EQ(request.constraint, nullptr);
}

TEST(ApiConstraint, EachAnswerHasItsOwnState) {
  const TestModel model;
  const auto exchange = opened(open_call(model, kChat, chat_body(R"("n":2,"guided_regex":"ab")")));
  ASSERT_NE(exchange, nullptr);
  const std::vector<Request> requests = exchange->take_requests();
  EXPECT_TRUE(allows(*requests[0].constraint, "ab"));
  EXPECT_TRUE(allows(*requests[1].constraint, "ab"));
}

TEST(ApiConstraint, FormsThatAreBrokenAreRefusedByName) {
  const TestModel model;
  const std::pair<const char*, const char*> broken[] = {
      {R"("guided_regex":"(")", "guided_regex"},
      {R"("guided_grammar":"root = x")", "guided_grammar"},
      {R"("guided_json":"{")", "guided_json"},
      {R"("structured_outputs":{"json":{"type":"colour"}})", "structured_outputs.json"},
      {R"("response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"x"}}})",
       "response_format"},
  };
  for (const auto& [members, field] : broken) {
    const ApiError error = refused(open_call(model, kChat, chat_body(members)));
    EXPECT_EQ(error.status, 400) << members;
    EXPECT_EQ(error.param, field) << error.message;
    EXPECT_THAT(error.message, HasSubstr(field));
  }
}

// --- Calls --------------------------------------------------------------------------------------

constexpr const char* kTools =
    R"("tools":[{"type":"function","function":{"name":"add","parameters":{"type":"object",
       "properties":{"x":{"type":"integer"}},"required":["x"],"additionalProperties":false}}},
       {"type":"function","function":{"name":"now"}}])";

constexpr const char* kAdd =
    "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"x\": 1}}\n</tool_call>";
constexpr const char* kNow = "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>";

TEST(ApiConstraint, HoldsAnswersToTheCallsThatAreForced) {
  const TestModel model;
  const auto forced = [&](const std::string& choice, std::string_view text) {
    return allows(model, kChat, chat_body(kTools + std::string(",\"tool_choice\":") + choice),
                  text);
  };
  const std::string named = R"({"type":"function","function":{"name":"add"}})";
  EXPECT_TRUE(forced("\"required\"", kAdd));
  EXPECT_TRUE(forced("\"required\"", kNow));
  EXPECT_FALSE(forced("\"required\"", "hello"));
  EXPECT_TRUE(forced(named, kAdd));
  EXPECT_FALSE(forced(named, kNow));
  EXPECT_FALSE(forced(named, "<tool_call>\n{\"name\": \"add\", \"arguments\": {}}\n</tool_call>"));
  EXPECT_FALSE(
      forced(R"("required","parallel_tool_calls":false)", std::string(kNow) + "\n" + kNow));
}

TEST(ApiConstraint, CallsCannotBeForcedInAnUnknownDialect) {
  const TestModel model("{{ tools }}{% for m in messages %}{{ m.content }}{% endfor %}");
  const ApiError error = refused(
      open_call(model, kChat, chat_body(kTools + std::string(R"(,"tool_choice":"required")"))));
  EXPECT_EQ(error.status, 400);
  EXPECT_EQ(error.param, "tool_choice");
}

TEST(ApiConstraint, ParametersThatAreNoSchemaAreRefused) {
  const TestModel model;
  const ApiError error = refused(open_call(
      model, kChat,
      chat_body(
          R"("tool_choice":"required","tools":[{"type":"function","function":{"name":"f","parameters":{"type":"x"}}}])")));
  EXPECT_EQ(error.status, 400);
  EXPECT_EQ(error.param, "tools");
  EXPECT_THAT(error.message, HasSubstr("tools[0]"));
}

// --- Cache --------------------------------------------------------------------------------------

TEST(ApiConstraint, GrammarsAreCompiledOncePerSource) {
  const TestModel model;
  GrammarCache cache;
  int compiled = 0;
  const auto get = [&](const std::string& expression) {
    return *cache.get(model.tokenizer(), expression, [&](const GrammarCompiler& compiler) {
      ++compiled;
      return compiler.regex(expression);
    });
  };
  const auto first = get("a");
  EXPECT_EQ(get("a"), first);
  EXPECT_EQ(compiled, 1);
  for (size_t i = 0; i + 1 < GrammarCache::kMaxGrammars; ++i) {
    get("b" + std::to_string(i));
    get("a");
  }
  EXPECT_EQ(get("a"), first) << "what is used stays";
  EXPECT_EQ(cache.size(), GrammarCache::kMaxGrammars);
  get("c");
  const int before = compiled;
  get("b0");
  EXPECT_EQ(compiled, before + 1) << "what was used longest ago goes first";
  EXPECT_EQ(cache.size(), GrammarCache::kMaxGrammars);
}

TEST(ApiConstraint, GrammarsThatDoNotCompileAreNotKept) {
  const TestModel model;
  GrammarCache cache;
  const auto broken = cache.get(
      model.tokenizer(), "(", [](const GrammarCompiler& compiler) { return compiler.regex("("); });
  EXPECT_FALSE(broken);
  EXPECT_EQ(cache.size(), 0u);
}

}  // namespace
}  // namespace quern
