// What every field of a body does to the request, and what is refused.
#include <functional>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "serve/api_endpoints.h"
#include "serve/api_sampling.h"
#include "serve/api_test_support.h"

namespace quern {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr const char* kChat = "/v1/chat/completions";
constexpr const char* kText = "/v1/completions";
constexpr const char* kResponses = "/v1/responses";
constexpr const char* kMessages = "/v1/messages";

// The least that each endpoint takes, with more members.
std::string least(std::string_view path, const std::string& more = "") {
  const std::string_view members =
      path == kChat        ? R"("messages":[{"role":"user","content":"hi"}])"
      : path == kText      ? R"("prompt":"hi")"
      : path == kResponses ? R"("input":"hi")"
      : path == kMessages  ? R"("max_tokens":9,"messages":[{"role":"user","content":"hi"}])"
      : path == "/v1/messages/count_tokens" ? R"("messages":[{"role":"user","content":"hi"}])"
      : path == "/v1/embeddings"            ? R"("input":"hi")"
      : path.starts_with("/admin/")         ? R"("model":"other")"
      : path == "/detokenize"               ? R"("tokens":[70])"
                                            : R"("prompt":"hi")";
  return "{" + std::string(members) + (more.empty() ? "" : ",") + more + "}";
}

struct Effect {
  const char* members;
  std::function<bool(const Request&)> holds;
};

// Holds for chat and completions alike.
const std::vector<Effect>& common_effects() {
  using R = const Request&;
  static const std::vector<Effect> effects = {
      {R"("temperature":0)", [](R r) { return r.sampling.temperature == 0.0f; }},
      {R"("temperature":null)", [](R r) { return r.sampling.temperature == 1.0f; }},
      {R"("top_p":0.25)", [](R r) { return r.sampling.top_p == 0.25f; }},
      {R"("top_k":40)", [](R r) { return r.sampling.top_k == 40; }},
      {R"("top_k":-1)", [](R r) { return r.sampling.top_k == 0; }},
      {R"("min_p":0.5)", [](R r) { return r.sampling.min_p == 0.5f; }},
      {R"("presence_penalty":-2)", [](R r) { return r.sampling.presence_penalty == -2.0f; }},
      {R"("frequency_penalty":1.5)", [](R r) { return r.sampling.frequency_penalty == 1.5f; }},
      {R"("repetition_penalty":1.25)", [](R r) { return r.sampling.repetition_penalty == 1.25f; }},
      {R"("seed":-9223372036854775808)", [](R r) { return r.sampling.seed == 1ull << 63; }},
      {R"("seed":9223372036854775807)",
       [](R r) { return r.sampling.seed == 9223372036854775807ull; }},
      {R"("seed":null)", [](R r) { return r.sampling.seed == 99; }},
      {R"("stop":"é")", [](R r) { return r.stop == std::vector<std::string>{"é"}; }},
      {R"("stop":["a","b"])",
       [](R r) {
         return r.stop == std::vector<std::string>{"a", "b"};
       }},
      {R"("stop":[])", [](R r) { return r.stop.empty(); }},
      {R"("stop_token_ids":[3,0])",
       [](R r) {
         return r.stop_tokens == std::vector{3, 0};
       }},
      {R"("logit_bias":{"257":-100,"0":2.5})",
       [](R r) {
         return r.logit_bias.size() == 2 && r.logit_bias[0].token == 257 &&
                r.logit_bias[0].bias == -100.0f && r.logit_bias[1].bias == 2.5f;
       }},
      {R"("ignore_eos":true)", [](R r) { return r.eos == EosTokens::kIgnore; }},
      {R"("ignore_eos":false)", [](R r) { return r.eos == EosTokens::kStop; }},
      {R"("max_tokens":7)", [](R r) { return r.max_tokens == 7; }},
      {R"("max_tokens":7.0)", [](R r) { return r.max_tokens == 7; }},
      {R"("min_tokens":3,"max_tokens":3)", [](R r) { return r.min_tokens == 3; }},
      {R"("prompt_logprobs":2)", [](R r) { return r.prompt_logprobs == 2; }},
      {R"("priority":-4)", [](R r) { return r.priority == -4; }},
      {R"("cache_salt":"s")", [](R r) { return r.cache_salt == salt_number("s"); }},
      {R"("truncate_prompt_tokens":1)", [](R r) { return r.prompt.size() == 1; }},
      {R"("user":"u","metadata":{"k":"v"},"store":false,"service_tier":"auto")",
       [](R r) { return r.max_tokens > 0; }},
  };
  return effects;
}

TEST(ApiRequest, EveryFieldReachesTheRequest) {
  const TestModel model;
  for (const char* path : {kChat, kText}) {
    for (const Effect& effect : common_effects()) {
      EXPECT_TRUE(effect.holds(only_request(model, path, least(path, effect.members))))
          << path << " " << effect.members;
    }
  }
}

TEST(ApiRequest, DefaultsAreOpenAis) {
  const TestModel model;
  for (const char* path : {kChat, kText, kResponses, kMessages}) {
    const Request request = only_request(model, path, least(path));
    EXPECT_EQ(request.sampling.temperature, 1.0f) << path;
    EXPECT_EQ(request.sampling.top_p, 1.0f);
    EXPECT_EQ(request.sampling.top_k, 0);
    EXPECT_EQ(request.sampling.min_p, 0.0f);
    EXPECT_EQ(request.sampling.repetition_penalty, 1.0f);
    EXPECT_EQ(request.sampling.presence_penalty, 0.0f);
    EXPECT_EQ(request.sampling.frequency_penalty, 0.0f);
    EXPECT_EQ(request.sampling.seed, 99u);
    EXPECT_EQ(request.cache_salt, 0u);
    EXPECT_FALSE(request.top_logprobs);
    EXPECT_FALSE(request.prompt_logprobs);
    EXPECT_EQ(request.constraint, nullptr);
  }
}

TEST(ApiRequest, MaxTokensIsWhatTheContextLeavesAndSixteenForTexts) {
  const TestModel model;
  EXPECT_EQ(only_request(model, kText, least(kText)).max_tokens, 16);
  for (const char* path : {kChat, kResponses}) {
    const Request request = only_request(model, path, least(path));
    EXPECT_EQ(request.max_tokens, 4096 - static_cast<int64_t>(request.prompt.size())) << path;
  }
  EXPECT_EQ(only_request(model, kMessages, least(kMessages)).max_tokens, 9);
  EXPECT_EQ(
      only_request(model, kResponses, least(kResponses, R"("max_output_tokens":5)")).max_tokens, 5);
  EXPECT_EQ(only_request(model, kChat, least(kChat, R"("max_completion_tokens":5)")).max_tokens, 5);
  EXPECT_EQ(only_request(model, kChat, least(kChat, R"("max_completion_tokens":5,"max_tokens":5)"))
                .max_tokens,
            5);
}

TEST(ApiRequest, ThePublishersRecommendationStandsBehindTheRequest) {
  TestModel model;
  model.model.defaults = {
      .temperature = 0.6f, .top_k = 20, .top_p = 0.95f, .min_p = 0.05f, .repetition_penalty = 1.1f};
  for (const char* path : {kChat, kText, kResponses, kMessages}) {
    const SamplingParams params = only_request(model, path, least(path)).sampling;
    EXPECT_EQ(params.temperature, 0.6f) << path;
    EXPECT_EQ(params.top_k, 20);
    EXPECT_EQ(params.top_p, 0.95f);
    EXPECT_EQ(params.min_p, 0.05f);
    EXPECT_EQ(params.repetition_penalty, 1.1f);
    const std::string own = least(path, R"("temperature":1,"top_k":0,"top_p":1)");
    const SamplingParams asked = only_request(model, path, own).sampling;
    EXPECT_EQ(asked.temperature, 1.0f) << path;
    EXPECT_EQ(asked.top_k, 0);
    EXPECT_EQ(asked.top_p, 1.0f);
  }
}

TEST(ApiRequest, MessagesNamesItsFieldsItsOwnWay) {
  const TestModel model;
  const Request request = only_request(
      model, kMessages,
      least(kMessages, R"("stop_sequences":["x","y"],"top_k":3,"top_p":0.5,"temperature":0.25)"));
  EXPECT_THAT(request.stop, ElementsAre("x", "y"));
  EXPECT_EQ(request.sampling.top_k, 3);
  EXPECT_EQ(request.sampling.top_p, 0.5f);
  EXPECT_EQ(request.sampling.temperature, 0.25f);
}

TEST(ApiRequest, LogprobsAskForAlternatives) {
  const TestModel model;
  EXPECT_EQ(only_request(model, kChat, least(kChat, R"("logprobs":true)")).top_logprobs, 0);
  EXPECT_EQ(
      only_request(model, kChat, least(kChat, R"("logprobs":true,"top_logprobs":20)")).top_logprobs,
      20);
  EXPECT_EQ(
      only_request(model, kChat, least(kChat, R"("logprobs":false,"top_logprobs":0)")).top_logprobs,
      std::nullopt);
  EXPECT_EQ(only_request(model, kText, least(kText, R"("logprobs":4)")).top_logprobs, 4);
  const Request echo = only_request(model, kText, least(kText, R"("logprobs":4,"echo":true)"));
  EXPECT_EQ(echo.prompt_logprobs, 4);
  EXPECT_EQ(only_request(model, kResponses, least(kResponses, R"("top_logprobs":2)")).top_logprobs,
            2);
  EXPECT_EQ(only_request(model, kResponses,
                         least(kResponses, R"("include":["message.output_text.logprobs"])"))
                .top_logprobs,
            0);
}

TEST(ApiRequest, AnswersToOnePromptDifferInTheirStream) {
  const TestModel model;
  const auto exchange = opened(open_call(model, kChat, least(kChat, R"("n":3,"seed":5)")));
  ASSERT_NE(exchange, nullptr);
  const std::vector<Request> requests = exchange->take_requests();
  ASSERT_EQ(requests.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(requests[i].sampling.seed, 5u);
    EXPECT_EQ(requests[i].sampling.stream, i);
    EXPECT_EQ(requests[i].prompt, requests[0].prompt);
  }
  EXPECT_EQ(exchange->model(), &model.model);
}

TEST(ApiRequest, PromptsComeAsTextsOrTokens) {
  const TestModel model;
  const auto prompts = [&](const std::string& prompt) {
    const auto exchange = opened(open_call(model, kText, R"({"n":2,"prompt":)" + prompt + "}"));
    std::vector<std::vector<int32_t>> all;
    for (const Request& request : exchange->take_requests()) all.push_back(request.prompt);
    return all;
  };
  using Tokens = std::vector<int32_t>;
  const Tokens ab = {2 + 'a', 2 + 'b'};
  EXPECT_THAT(prompts(R"("ab")"), ElementsAre(ab, ab));
  EXPECT_THAT(prompts(R"(["ab","c"])"), ElementsAre(ab, ab, Tokens{2 + 'c'}, Tokens{2 + 'c'}));
  EXPECT_THAT(prompts("[5,6]"), ElementsAre(Tokens{5, 6}, Tokens{5, 6}));
  EXPECT_THAT(prompts("[[5],[6.0,7]]"),
              ElementsAre(Tokens{5}, Tokens{5}, Tokens{6, 7}, Tokens{6, 7}));
  EXPECT_THAT(prompts(R"("<|im_end|>")"), ElementsAre(Tokens{1}, Tokens{1}));
}

std::string prompt_text(const TestModel& model, const char* path, const std::string& body) {
  return model.tokenizer().decode(only_request(model, path, body).prompt);
}

TEST(ApiRequest, ConversationsGoThroughTheTemplate) {
  const TestModel model;
  EXPECT_EQ(prompt_text(model, kChat, R"({"messages":[
      {"role":"developer","content":"be brief"},
      {"role":"user","name":"Ann","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
      {"role":"assistant","content":null,"refusal":null,"reasoning":"think","tool_calls":[
        {"id":"c1","type":"function","function":{"name":"f","arguments":"{\"x\": 1}"}}]},
      {"role":"tool","tool_call_id":"c1","content":"2"}]})"),
            "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\na\nb<|im_end|>\n"
            "<|im_start|>assistant\n(think)<tool_call>{\"name\": \"f\", \"arguments\": {\"x\": 1}}"
            "</tool_call><|im_end|>\n<|im_start|>tool\n2<|im_end|>\n<|im_start|>assistant\n");
}

TEST(ApiRequest, AllEndpointsForConversationsMakeTheSamePrompt) {
  const TestModel model;
  const std::string chat = prompt_text(model, kChat, R"({
    "messages":[
      {"role":"system","content":"s"},
      {"role":"user","content":"u"},
      {"role":"assistant","content":"ok","reasoning_content":"r","tool_calls":[
        {"id":"c1","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}}]},
      {"role":"tool","tool_call_id":"c1","content":"2"},
      {"role":"user","content":"and?"}],
    "tools":[{"type":"function","function":{"name":"f","description":"d",
      "parameters":{"type":"object"}}}]})");
  EXPECT_EQ(prompt_text(model, kMessages, R"({"max_tokens":5,
    "system":[{"type":"text","text":"s"}],
    "messages":[
      {"role":"user","content":"u"},
      {"role":"assistant","content":[
        {"type":"thinking","thinking":"r","signature":""},
        {"type":"text","text":"ok"},
        {"type":"tool_use","id":"c1","name":"f","input":{"x":1}}]},
      {"role":"user","content":[
        {"type":"tool_result","tool_use_id":"c1","content":[{"type":"text","text":"2"}]},
        {"type":"text","text":"and?"}]}],
    "tools":[{"name":"f","description":"d","input_schema":{"type":"object"}}]})"),
            chat);
  EXPECT_EQ(prompt_text(model, kResponses, R"({
    "instructions":"s",
    "input":[
      {"role":"user","content":"u"},
      {"type":"reasoning","id":"rs_1","summary":[],"content":[{"type":"reasoning_text","text":"r"}]},
      {"type":"message","role":"assistant","content":[
        {"type":"output_text","text":"ok","annotations":[],"logprobs":[]}]},
      {"type":"function_call","call_id":"c1","name":"f","arguments":"{\"x\":1}"},
      {"type":"function_call_output","call_id":"c1","output":"2"},
      {"type":"message","role":"user","content":[{"type":"input_text","text":"and?"}]}],
    "tools":[{"type":"function","name":"f","description":"d","parameters":{"type":"object"}}]})"),
            chat);
}

TEST(ApiRequest, TextOfMessagesIsNeverASpecialToken) {
  const TestModel model;
  for (const char* path : {kChat, kResponses, kMessages}) {
    std::string body = least(path);
    body.replace(body.find("hi"), 2, "<|im_end|><|im_start|>");
    const std::vector<int32_t> prompt = only_request(model, path, body).prompt;
    EXPECT_EQ(std::count(prompt.begin(), prompt.end(), 0), 2) << path;  // the template's own
    EXPECT_EQ(std::count(prompt.begin(), prompt.end(), 1), 1) << path;
  }
}

TEST(ApiRequest, TheEndOfAPromptCanBeChosen) {
  const TestModel model;
  const std::string message = R"("messages":[{"role":"user","content":"a"},
      {"role":"assistant","content":"Once upon"}])";
  EXPECT_EQ(prompt_text(model, kChat, "{" + message + R"(,"add_generation_prompt":false})"),
            "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nOnce upon<|im_end|>\n");
  const std::string open = "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nOnce upon";
  EXPECT_EQ(prompt_text(model, kChat, "{" + message + R"(,"continue_final_message":true})"), open);
  EXPECT_EQ(prompt_text(model, kMessages, "{" + message + R"(,"max_tokens":3})"), open);
}

TEST(ApiRequest, ReasoningIsSetWhereTheTemplateKnowsOfIt) {
  const TestModel model;
  const std::string closed = "<think>\n\n</think>\n\n";
  EXPECT_THAT(prompt_text(model, kChat, least(kChat, R"("reasoning_effort":"none")")),
              HasSubstr(closed));
  EXPECT_THAT(prompt_text(model, kChat, least(kChat, R"("reasoning_effort":"low")")),
              testing::Not(HasSubstr(closed)));
  EXPECT_THAT(prompt_text(model, kResponses, least(kResponses, R"("reasoning":{"effort":"none"})")),
              HasSubstr(closed));
  EXPECT_THAT(prompt_text(model, kMessages, least(kMessages, R"("thinking":{"type":"disabled"})")),
              HasSubstr(closed));
  EXPECT_THAT(prompt_text(model, kChat,
                          least(kChat, R"("chat_template_kwargs":{"enable_thinking":false})")),
              HasSubstr(closed));
  const TestModel plain("{% for m in messages %}{{ m.content }}{% endfor %}");
  EXPECT_EQ(refused(open_call(plain, kChat, least(kChat, R"("reasoning_effort":"low")"))).param,
            "reasoning_effort");
  EXPECT_EQ(
      refused(open_call(plain, kMessages, least(kMessages, R"("thinking":{"type":"adaptive"})")))
          .param,
      "thinking");
  opened(open_call(plain, kMessages, least(kMessages, R"("thinking":{"type":"disabled"})")));
}

TEST(ApiRequest, ArgumentsAreTextForTemplatesThatNeedIt) {
  const TestModel model(
      "{% for m in messages %}{% for c in m.tool_calls %}{{ '<' + c.function.arguments + '>' }}"
      "{% endfor %}{% endfor %}");
  EXPECT_EQ(prompt_text(model, kChat, R"({"messages":[{"role":"assistant","tool_calls":[
      {"id":"1","type":"function","function":{"name":"f","arguments":"{\"x\": 1}"}}]}]})"),
            "<{\"x\":1}>");
}

TEST(ApiRequest, ToolsAreLeftOutWhenNoneMayBeCalled) {
  const TestModel model;
  const std::string tools = R"("tools":[{"type":"function","function":{"name":"f"}}])";
  EXPECT_THAT(prompt_text(model, kChat, least(kChat, tools)), HasSubstr("# Tools"));
  EXPECT_THAT(prompt_text(model, kChat, least(kChat, tools + R"(,"tool_choice":"auto")")),
              HasSubstr("# Tools"));
  EXPECT_THAT(prompt_text(model, kChat, least(kChat, tools + R"(,"tool_choice":"none")")),
              testing::Not(HasSubstr("# Tools")));
}

// --- Refusals -----------------------------------------------------------------------------------

struct Refusal {
  const char* path;
  const char* members;
  int status;
  const char* param;
  const char* message;
};

const std::vector<Refusal>& refusals() {
  static const std::vector<Refusal> all = {
      {kChat, R"("model":"other")", 404, "model", "there is no model \"other\"; there is test"},
      {kChat, R"("best_of":2)", 400, "best_of", "not a field"},
      {kChat, R"("bad_words":[])", 400, "bad_words", "not a field"},
      {kChat, R"("store":true)", 400, "store", "must be false"},
      {kChat, R"("service_tier":"flex")", 400, "service_tier", "\"auto\" or \"default\""},
      {kChat, R"("chat_template":"{{ 1 }}")", 400, "chat_template", "comes with its model alone"},
      {kChat, R"("functions":[])", 400, "functions", "tools has taken its place"},
      {kChat, R"("function_call":"auto")", 400, "function_call", "tool_choice"},
      {kChat, R"("modalities":["text","audio"])", 400, "modalities", "1 to 1 items"},
      {kChat, R"("audio":{})", 400, "audio", "makes no audio"},
      {kChat, R"("n":9)", 400, "n", "[1, 8]"},
      {kChat, R"("top_logprobs":2)", 400, "top_logprobs", "needs logprobs"},
      {kChat, R"("stream_options":{"include_usage":true})", 400, "stream_options", "needs stream"},
      {kChat, R"("max_tokens":5,"max_completion_tokens":6)", 400, "max_completion_tokens",
       "only one"},
      {kChat, R"("logit_bias":{"259":1})", 400, "logit_bias", "tokens 0 to 258"},
      {kChat, R"("stop_token_ids":[259])", 400, "stop_token_ids", "tokens 0 to 258"},
      {kChat, R"("min_tokens":5,"max_tokens":4)", 400, "min_tokens", "max_tokens = 4"},
      {kChat, R"("chat_template_kwargs":{"colour":1})", 400, "chat_template_kwargs.colour",
       "no variable"},
      {kChat, R"("chat_template_kwargs":{"messages":[]})", 400, "chat_template_kwargs.messages",
       "set by the server"},
      {kChat, R"("continue_final_message":true)", 400, "continue_final_message", "assistant"},
      {kChat, R"("continue_final_message":true,"add_generation_prompt":true)", 400,
       "continue_final_message", "exclude each other"},
      {kChat, R"("tool_choice":"required")", 400, "tool_choice", "there are no tools"},
      {kChat,
       R"("tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":{"type":"function","function":{"name":"g"}})",
       400, "tool_choice", "\"g\", which is not among the tools"},
      {kChat,
       R"("tools":[{"type":"function","function":{"name":"f"}},{"type":"function","function":{"name":"f"}}])",
       400, "tools[1].function.name", "which an earlier tool has"},
      {kChat,
       R"("tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":"required","guided_regex":"a")",
       400, "guided_regex", "exclude each other"},
      {kChat, R"("tools":[{"type":"web_search"}])", 400, "tools[0].type", "must be \"function\""},
      {kChat, R"("response_format":{"type":"json_object"},"guided_regex":"a")", 400, "guided_regex",
       "exclude each other"},
      {kChat, R"("structured_outputs":{})", 400, "structured_outputs", "must have one"},
      {kChat, R"("response_format":{"type":"xml"})", 400, "response_format", "must be an object"},
      {kText, R"("suffix":"x")", 400, "suffix", "does not fill in"},
      {kText, R"("best_of":2)", 400, "best_of", "must be 1"},
      {kText, R"("logprobs":true)", 400, "logprobs", "an integer in [0, 20]"},
      {kText, R"("tools":[])", 400, "tools", "not a field"},
      {kText, R"("stream_options":{})", 400, "stream_options", "needs stream"},
      {kResponses, R"("previous_response_id":"resp_1")", 400, "previous_response_id",
       "stores nothing"},
      {kResponses, R"("conversation":"c")", 400, "conversation", "stores nothing"},
      {kResponses, R"("background":true)", 400, "background", "must be false"},
      {kResponses, R"("truncation":"auto")", 400, "truncation", "disabled"},
      {kResponses, R"("store":true)", 400, "store", "must be false"},
      {kResponses, R"("max_tokens":5)", 400, "max_tokens", "not a field"},
      {kResponses, R"("tools":[{"type":"web_search"}])", 400, "tools[0].type", "function"},
      {kResponses, R"("reasoning":{"summary":"auto"})", 400, "reasoning.summary", "given whole"},
      {kMessages, R"("thinking":{"type":"enabled","budget_tokens":2000})", 400,
       "thinking.budget_tokens", "not supported"},
      {kMessages, R"("mcp_servers":[])", 400, "mcp_servers", "runs no tools"},
      {kMessages, R"("temperature":1.5)", 400, "temperature", "[0, 1]"},
      {kMessages, R"("stop":["a"])", 400, "stop", "not a field"},
      {kMessages, R"("tool_choice":{"type":"any"})", 400, "tool_choice", "there are no tools"},
      {"/v1/embeddings", R"("dimensions":5)", 400, "dimensions", "embeddings of this model have 4"},
      {"/v1/embeddings", R"("encoding_format":"hex")", 400, "encoding_format", "base64"},
      {"/v1/embeddings", R"("temperature":1)", 400, "temperature", "not a field"},
      {"/v1/embeddings", R"("model":"x")", 404, "model", "there is no model"},
  };
  return all;
}

TEST(ApiRequest, RefusesWhatItCannotHonourByName) {
  const TestModel model;
  for (const Refusal& refusal : refusals()) {
    const ApiError error =
        refused(open_call(model, refusal.path, least(refusal.path, refusal.members)));
    EXPECT_EQ(error.status, refusal.status) << refusal.members << ": " << error.message;
    EXPECT_EQ(error.param, refusal.param) << refusal.members << ": " << error.message;
    EXPECT_THAT(error.message, HasSubstr(refusal.message)) << refusal.members;
  }
}

TEST(ApiRequest, RefusesWhatDoesNotFitTheContextWithTheNumbers) {
  TestModel model;
  model.model.limits.context_tokens = 40;
  for (const char* path : {kChat, kResponses}) {
    const std::string field = path == kChat ? "messages" : "input";
    std::string body = least(path);
    body.replace(body.find("hi"), 2, std::string(100, 'x'));
    const ApiError error = refused(open_call(model, path, body));
    EXPECT_EQ(error.status, 400);
    EXPECT_EQ(error.code, "context_length_exceeded");
    EXPECT_EQ(error.param, field);
    EXPECT_THAT(error.message, HasSubstr("the context of this model is 40 tokens"));
  }
  const ApiError error = refused(open_call(model, kText, R"({"prompt":"abcde","max_tokens":36})"));
  EXPECT_EQ(error.code, "context_length_exceeded");
  EXPECT_THAT(error.message, HasSubstr("prompt has 5 tokens and max_tokens is 36, 41 in all"));
  EXPECT_EQ(only_request(model, kText, R"({"prompt":"abcde","max_tokens":35})").max_tokens, 35);
  model.model.limits.cache_tokens = 30;
  EXPECT_EQ(refused(open_call(model, kText, R"({"prompt":"abcde","max_tokens":26})")).code,
            "context_length_exceeded");
}

TEST(ApiRequest, RefusesWhatTheModelsTemplateDoesNotTake) {
  TestModel model("{% for m in messages %}{{ m.content }}{% endfor %}");
  EXPECT_EQ(
      refused(open_call(model, kChat,
                        least(kChat, R"("tools":[{"type":"function","function":{"name":"f"}}])")))
          .param,
      "tools");
  EXPECT_EQ(refused(open_call(model, kChat, least(kChat, R"("documents":[{"text":"x"}])"))).param,
            "documents");
  model.model.chat_template = nullptr;
  const ApiError error = refused(open_call(model, kChat, least(kChat)));
  EXPECT_EQ(error.status, 400);
  EXPECT_THAT(error.message, HasSubstr("no chat template; use /v1/completions"));
}

TEST(ApiRequest, ReportsWhatTheTemplateRefuses) {
  const TestModel model("{{ raise_exception('roles must alternate') }}");
  const ApiError error = refused(open_call(model, kChat, least(kChat)));
  EXPECT_EQ(error.status, 400);
  EXPECT_EQ(error.param, "messages");
  EXPECT_THAT(error.message, HasSubstr("roles must alternate"));
}

TEST(ApiRequest, RefusesPromptsOfNoOrUnknownTokens) {
  const TestModel model;
  EXPECT_EQ(refused(open_call(model, kText, R"({"prompt":""})")).param, "prompt");
  EXPECT_EQ(refused(open_call(model, kText, R"({"prompt":[]})")).param, "prompt");
  EXPECT_EQ(refused(open_call(model, kText, R"({"prompt":[259]})")).param, "prompt");
  EXPECT_EQ(refused(open_call(model, kText, R"({"prompt":[[1],["a"]]})")).param, "prompt[1][0]");
  std::string many = "\"a\"";
  for (int i = 1; i < 64; ++i) many += ",\"a\"";
  EXPECT_EQ(refused(open_call(model, kText, R"({"n":3,"prompt":[)" + many + "]}")).param, "n");
}

TEST(ApiRequest, MessagesOfOtherFormsAreRefusedWhereTheyAre) {
  const TestModel model;
  const auto param = [&](const char* path, const std::string& messages) {
    return refused(open_call(model, path, "{\"max_tokens\":4,\"messages\":" + messages + "}"))
        .param;
  };
  EXPECT_EQ(param(kChat, "[]"), "messages");
  EXPECT_EQ(param(kChat, "\"hi\""), "messages");
  EXPECT_EQ(param(kChat, R"([{"role":"user"}])"), "messages[0].content");
  EXPECT_EQ(param(kChat, R"([{"role":"user","content":5}])"), "messages[0].content");
  EXPECT_EQ(param(kChat, R"([{"role":"robot","content":"x"}])"), "messages[0]");
  EXPECT_EQ(param(kChat, R"([{"role":"user","content":[{"type":"image_url","image_url":{}}]}])"),
            "messages[0].content[0].type");
  EXPECT_EQ(param(kChat, R"([{"role":"tool","content":"x"}])"), "messages[0].tool_call_id");
  EXPECT_EQ(param(kMessages, R"([{"role":"system","content":"x"}])"), "messages[0]");
  EXPECT_EQ(param(kMessages, R"([{"role":"user","content":[{"type":"image","source":{}}]}])"),
            "messages[0].content[0]");
}

// --- Bodies made from the schemas ---------------------------------------------------------------

bool conforms(const Schema& schema, const OrderedJson& value) {
  return static_cast<bool>(check(schema, value));
}

TEST(ApiRequest, EveryFieldRefusesEveryOtherTypeByName) {
  const TestModel model;
  const OrderedJson others[] = {false,
                                true,
                                -1,
                                0,
                                3.5,
                                1e308,
                                "",
                                "text",
                                "😀",
                                OrderedJson::array(),
                                OrderedJson::object(),
                                OrderedJson::array({nullptr}),
                                {{"a", {{"b", 1}}}}};
  int tried = 0;
  for (const Endpoint& endpoint : api_endpoints()) {
    if (endpoint.request == nullptr) continue;
    const Schema schema = endpoint.request();
    for (const SchemaMember& member : schema.members) {
      for (const OrderedJson& value : others) {
        if (conforms(member.schema, value)) continue;
        OrderedJson body = OrderedJson::parse(least(endpoint.path));
        body[member.name] = value;
        const ApiError error = refused(open_call(model, endpoint.path, dump(body)));
        EXPECT_EQ(error.status, 400) << dump(body);
        EXPECT_TRUE(error.param.starts_with(member.name)) << error.param << " " << dump(body);
        ++tried;
      }
      OrderedJson absent = OrderedJson::parse(least(endpoint.path));
      if (member.presence == Presence::kRequired && absent.erase(member.name) == 1) {
        EXPECT_EQ(refused(open_call(model, endpoint.path, dump(absent))).param, member.name);
      } else {
        absent[member.name] = nullptr;
        opened(open_call(model, endpoint.path, dump(absent)));
      }
    }
  }
  EXPECT_GT(tried, 1000);
}

}  // namespace
}  // namespace quern
