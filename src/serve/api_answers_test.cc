// What the endpoints answer: bodies and streams, byte for byte where clients depend on it.
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "serve/api_endpoints.h"
#include "serve/api_test_support.h"

namespace quern {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr const char* kChat = "/v1/chat/completions";
constexpr const char* kText = "/v1/completions";
constexpr const char* kResponses = "/v1/responses";
constexpr const char* kMessages = "/v1/messages";

std::string chat_body(const std::string& more = "") {
  return R"({"messages":[{"role":"user","content":"hi"}])" + more + "}";
}

Script script(std::vector<std::string> texts) {
  Script made;
  made.texts = std::move(texts);
  return made;
}

const Script kHello = script({"He", "llo", ""});

// --- Chat ---------------------------------------------------------------------------------------

TEST(ApiAnswers, ChatAnswersWithAMessage) {
  const TestModel model;
  Script hello = kHello;
  hello.cached_tokens = 16;
  EXPECT_EQ(answer(model, kChat, chat_body(), {hello}),
            R"({"id":"chatcmpl-7","object":"chat.completion","created":1700000001,)"
            R"("model":"test","system_fingerprint":"fp_test","choices":[{"index":0,)"
            R"("message":{"role":"assistant","content":"Hello","refusal":null},)"
            R"("logprobs":null,"finish_reason":"stop","stop_reason":null}],)"
            R"("usage":{"prompt_tokens":21,"completion_tokens":3,"total_tokens":24,)"
            R"("prompt_tokens_details":{"cached_tokens":16},)"
            R"("completion_tokens_details":{"reasoning_tokens":0}}})");
}

TEST(ApiAnswers, ChatStreamsRoleThenTextThenReasonThenDone) {
  const TestModel model;
  const std::string head =
      R"(data: {"id":"chatcmpl-7","object":"chat.completion.chunk","created":1700000001,)"
      R"("model":"test","system_fingerprint":"fp_test","choices":[{"index":0,"delta":)";
  EXPECT_EQ(answer(model, kChat, chat_body(R"(,"stream":true)"), {kHello}),
            head + R"({"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]})" +
                "\n\n" + head + R"({"content":"He"},"logprobs":null,"finish_reason":null}]})" +
                "\n\n" + head + R"({"content":"llo"},"logprobs":null,"finish_reason":null}]})" +
                "\n\n" + head +
                R"({},"logprobs":null,"finish_reason":"stop","stop_reason":null}]})" +
                "\n\ndata: [DONE]\n\n");
}

TEST(ApiAnswers, ChatStreamsUsageWhereItIsWanted) {
  const TestModel model;
  const auto last = frames(
      answer(model, kChat, chat_body(R"(,"stream":true,"stream_options":{"include_usage":true})"),
             {kHello}));
  ASSERT_EQ(last.size(), 6u);
  for (size_t i = 0; i < 4; ++i) EXPECT_TRUE(last[i].data["usage"].is_null());
  EXPECT_TRUE(last[4].data["choices"].empty());
  EXPECT_EQ(last[4].data["usage"]["total_tokens"], 24);
  const auto each = frames(answer(
      model, kChat, chat_body(R"(,"stream":true,"stream_options":{"continuous_usage_stats":true})"),
      {kHello}));
  ASSERT_EQ(each.size(), 5u);
  EXPECT_EQ(each[0].data["usage"]["completion_tokens"], 1);
  EXPECT_EQ(each[2].data["usage"]["completion_tokens"], 2);
  EXPECT_EQ(each[3].data["usage"]["completion_tokens"], 3);
}

TEST(ApiAnswers, ChoicesStandInTheOrderOfTheirIndex) {
  const TestModel model;
  const OrderedJson body = OrderedJson::parse(
      answer(model, kChat, chat_body(R"(,"n":2)"), {script({"a", "b", "c"}), script({"x"})}));
  ASSERT_EQ(body["choices"].size(), 2u);
  EXPECT_EQ(body["choices"][0]["index"], 0);
  EXPECT_EQ(body["choices"][0]["message"]["content"], "abc");
  EXPECT_EQ(body["choices"][1]["message"]["content"], "x");
  EXPECT_EQ(body["usage"]["prompt_tokens"], 21) << "a prompt counts once";
  EXPECT_EQ(body["usage"]["completion_tokens"], 4);
}

TEST(ApiAnswers, LogprobsHaveTheBytesOfTheirTokens) {
  const TestModel model;
  const Script accent = script({"", "é"});
  const OrderedJson body = OrderedJson::parse(
      answer(model, kChat, chat_body(R"(,"logprobs":true,"top_logprobs":1)"), {accent}));
  const OrderedJson& content = body["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(content.size(), 2u);
  EXPECT_EQ(dump(content[1]),
            "{\"token\":\"\xef\xbf\xbd\",\"logprob\":-0.5,\"bytes\":[195],\"top_logprobs\":[{"
            "\"token\":\"\xef\xbf\xbd\",\"logprob\":-0.5,\"bytes\":[195]}]}");
  const auto stream = frames(answer(
      model, kChat, chat_body(R"(,"logprobs":true,"top_logprobs":1,"stream":true)"), {accent}));
  ASSERT_EQ(stream.size(), 5u) << "a token without text has a chunk for its logprob";
  EXPECT_EQ(stream[1].data["choices"][0]["delta"]["content"], "");
  EXPECT_EQ(stream[2].data["choices"][0]["logprobs"]["content"][0], content[1]);
}

TEST(ApiAnswers, InfiniteLogprobsAreNumbersInJson) {
  const TestModel model;
  const auto exchange = opened(open_call(model, kChat, chat_body(R"(,"logprobs":true)")));
  ASSERT_NE(exchange, nullptr);
  std::string out;
  exchange->on_event(0, TokenEvent{0, 70, "D", Logprobs{-INFINITY, {}}}, out);
  exchange->on_event(0, FinishedEvent{}, out);
  exchange->end(out);
  EXPECT_THAT(out, HasSubstr("\"logprob\":-9999.0"));
}

TEST(ApiAnswers, TheReasonsOfTheEndAreNamed) {
  const TestModel model;
  const auto choice = [&](const std::string& more, const Script& played) {
    return OrderedJson::parse(answer(model, kChat, chat_body(more), {played}))["choices"][0];
  };
  Script cut = kHello;
  cut.reason = FinishReason::kLength;
  EXPECT_EQ(choice("", cut)["finish_reason"], "length");
  Script stopped = kHello;
  stopped.stop = "END";
  OrderedJson end = choice(R"(,"stop":"END")", stopped);
  EXPECT_EQ(end["finish_reason"], "stop");
  EXPECT_EQ(end["stop_reason"], "END");
  EXPECT_EQ(end["message"]["content"], "Hello");
  end = choice(R"(,"stop":"END","include_stop_str_in_output":true)", stopped);
  EXPECT_EQ(end["message"]["content"], "HelloEND");
  EXPECT_EQ(choice(R"(,"stop_token_ids":[1])", kHello)["stop_reason"], 1);
  EXPECT_EQ(choice(R"(,"stop_token_ids":[2])", kHello)["stop_reason"], nullptr);
}

TEST(ApiAnswers, TokenIdsAndPromptLogprobsComeWhenAskedFor) {
  const TestModel model;
  const std::string more = R"(,"return_token_ids":true,"prompt_logprobs":1)";
  const OrderedJson choice =
      OrderedJson::parse(answer(model, kChat, chat_body(more), {kHello}))["choices"][0];
  EXPECT_EQ(choice["token_ids"], OrderedJson({2 + 'H', 2 + 'l', 1}));
  EXPECT_EQ(choice["prompt_token_ids"].size(), 21u);
  ASSERT_EQ(choice["prompt_logprobs"].size(), 21u);
  EXPECT_TRUE(choice["prompt_logprobs"][0].is_null());
  EXPECT_EQ(dump(choice["prompt_logprobs"][1]),
            R"({"119":{"logprob":-1.0,"rank":null,"decoded_token":"u"},)"
            R"("66":{"logprob":-0.25,"rank":1,"decoded_token":"@"}})");
  const auto stream = frames(answer(model, kChat, chat_body(more + R"(,"stream":true)"), {kHello}));
  EXPECT_EQ(stream[0].data["choices"][0]["prompt_logprobs"], choice["prompt_logprobs"]);
  EXPECT_EQ(stream[0].data["choices"][0]["prompt_token_ids"], choice["prompt_token_ids"]);
  EXPECT_EQ(stream[1].data["choices"][0]["token_ids"], OrderedJson::array({2 + 'H'}));
}

TEST(ApiAnswers, InvalidBytesBecomeReplacementCharacters) {
  const TestModel model;
  EXPECT_THAT(answer(model, kChat, chat_body(), {script({"a\xff"})}), HasSubstr("a\xef\xbf\xbd"));
}

// --- Failures -----------------------------------------------------------------------------------

struct Failure {
  FinishReason reason;
  int status;
  const char* code;
};

constexpr Failure kFailures[] = {{FinishReason::kError, 500, "server_error"},
                                 {FinishReason::kCancelled, 503, "cancelled"},
                                 {FinishReason::kExpired, 503, "overloaded"}};

TEST(ApiAnswers, AFailureBeforeTheFirstByteIsABodyWithItsStatus) {
  const TestModel model;
  for (const Failure& failure : kFailures) {
    for (const char* more : {"", R"(,"stream":true)"}) {
      const auto exchange = opened(open_call(model, kChat, chat_body(more)));
      ASSERT_NE(exchange, nullptr);
      EXPECT_EQ(exchange->status(), 200);
      FinishedEvent finished;
      finished.reason = failure.reason;
      finished.error = "logits are not finite";
      std::string out;
      exchange->on_event(0, finished, out);
      EXPECT_EQ(out, "");
      EXPECT_EQ(exchange->status(), failure.status);
      exchange->end(out);
      const OrderedJson body = OrderedJson::parse(out);
      EXPECT_EQ(body["error"]["code"], failure.code);
      EXPECT_EQ(body["error"]["type"], "server_error");
    }
  }
}

TEST(ApiAnswers, AFailureWithinAStreamIsItsLastFrame) {
  const TestModel model;
  Script broken = kHello;
  broken.reason = FinishReason::kError;
  broken.error = "logits are not finite";
  const auto chat = frames(answer(model, kChat, chat_body(R"(,"stream":true)"), {broken}));
  ASSERT_EQ(chat.size(), 4u);
  EXPECT_EQ(dump(chat[3].data), R"({"error":{"message":"the model failed: logits are not finite",)"
                                R"("type":"server_error","param":null,"code":"server_error"}})");
  const auto messages = frames(answer(
      model, kMessages,
      R"({"max_tokens":4,"stream":true,"messages":[{"role":"user","content":"hi"}]})", {broken}));
  EXPECT_EQ(messages.back().event, "error");
  EXPECT_EQ(messages.back().data["error"]["type"], "api_error");
  EXPECT_EQ(messages.back().data["request_id"], "req-7");
  const auto responses =
      frames(answer(model, kResponses, R"({"input":"hi","stream":true})", {broken}));
  EXPECT_EQ(responses.back().event, "response.failed");
  EXPECT_EQ(responses.back().data["response"]["status"], "failed");
  EXPECT_EQ(responses.back().data["response"]["error"]["code"], "server_error");
}

TEST(ApiAnswers, ErrorsFromOutsideHaveTheFormOfTheMoment) {
  const TestModel model;
  const ApiError full = {.status = 503, .type = "server_error", .code = "full", .message = "full"};
  const auto exchange = opened(open_call(model, kChat, chat_body(R"(,"stream":true)")));
  ASSERT_NE(exchange, nullptr);
  const std::string body =
      R"({"error":{"message":"full","type":"server_error","param":null,"code":"full"}})";
  EXPECT_EQ(exchange->error(full), body);
  std::string out;
  exchange->on_event(0, TokenEvent{0, 70, "D", {}}, out);
  EXPECT_EQ(exchange->error(full), "data: " + body + "\n\n");
}

// --- Completions --------------------------------------------------------------------------------

TEST(ApiAnswers, CompletionsAnswerWithText) {
  const TestModel model;
  EXPECT_EQ(answer(model, kText, R"({"prompt":"ab"})", {kHello}),
            R"({"id":"cmpl-7","object":"text_completion","created":1700000001,"model":"test",)"
            R"("system_fingerprint":"fp_test","choices":[{"index":0,"text":"Hello",)"
            R"("logprobs":null,"finish_reason":"stop","stop_reason":null}],)"
            R"("usage":{"prompt_tokens":2,"completion_tokens":3,"total_tokens":5,)"
            R"("prompt_tokens_details":{"cached_tokens":0},)"
            R"("completion_tokens_details":{"reasoning_tokens":0}}})");
}

TEST(ApiAnswers, CompletionsNumberTheAnswersOfAllPrompts) {
  const TestModel model;
  const OrderedJson body =
      OrderedJson::parse(answer(model, kText, R"({"prompt":["ab","c"],"n":2,"echo":true})",
                                {script({"1"}), script({"2"}), script({"3"}), script({"4"})}));
  std::vector<std::string> texts;
  for (const OrderedJson& choice : body["choices"]) texts.push_back(choice["text"]);
  EXPECT_THAT(texts, ElementsAre("ab1", "ab2", "c3", "c4"));
  EXPECT_EQ(body["usage"]["prompt_tokens"], 3);
}

TEST(ApiAnswers, CompletionsEchoThePromptWithItsLogprobs) {
  const TestModel model;
  const std::string body = R"({"prompt":"aé","echo":true,"logprobs":1,"max_tokens":1)";
  const OrderedJson choice =
      OrderedJson::parse(answer(model, kText, body + "}", {script({"z"})}))["choices"][0];
  EXPECT_EQ(choice["text"], "aéz");
  EXPECT_EQ(dump(choice["logprobs"]),
            "{\"text_offset\":[0,1,2,3],\"token_logprobs\":[null,-1.0,-1.0,-0.5],"
            "\"tokens\":[\"a\",\"\xef\xbf\xbd\",\"\xef\xbf\xbd\",\"z\"],"
            "\"top_logprobs\":[null,{\"@\":-0.25},{\"@\":-0.25},{\"z\":-0.5}]}");
  EXPECT_FALSE(choice.contains("prompt_logprobs"));
  const auto stream = frames(answer(model, kText, body + R"(,"stream":true})", {script({"z"})}));
  ASSERT_EQ(stream.size(), 4u);
  EXPECT_EQ(stream[0].data["choices"][0]["text"], "aé");
  EXPECT_EQ(stream[0].data["choices"][0]["logprobs"]["tokens"].size(), 3u);
  EXPECT_EQ(stream[1].data["choices"][0]["logprobs"]["text_offset"], OrderedJson::array({3}));
  EXPECT_EQ(stream[2].data["choices"][0]["finish_reason"], "stop");
}

TEST(ApiAnswers, CompletionsStreamTextThenReasonThenDone) {
  const TestModel model;
  const std::string head =
      R"(data: {"id":"cmpl-7","object":"text_completion","created":1700000001,"model":"test",)"
      R"("system_fingerprint":"fp_test","choices":[{"index":0,"text":)";
  EXPECT_EQ(answer(model, kText, R"({"prompt":"ab","stream":true})", {kHello}),
            head + R"("He","logprobs":null,"finish_reason":null}]})" + "\n\n" + head +
                R"("llo","logprobs":null,"finish_reason":null}]})" + "\n\n" + head +
                R"("","logprobs":null,"finish_reason":"stop","stop_reason":null}]})" +
                "\n\ndata: [DONE]\n\n");
}

// --- Messages -----------------------------------------------------------------------------------

std::string messages_body(const std::string& more = "") {
  return R"({"max_tokens":9,"messages":[{"role":"user","content":"hi"}])" + more + "}";
}

TEST(ApiAnswers, MessagesAnswerWithBlocks) {
  const TestModel model;
  Script hello = kHello;
  hello.cached_tokens = 16;
  EXPECT_EQ(answer(model, kMessages, messages_body(), {hello}),
            R"({"id":"msg_7","type":"message","role":"assistant","model":"test",)"
            R"("content":[{"type":"text","text":"Hello"}],"stop_reason":"end_turn",)"
            R"("stop_sequence":null,"usage":{"input_tokens":5,"cache_creation_input_tokens":0,)"
            R"("cache_read_input_tokens":16,"output_tokens":3}})");
  Script stopped = kHello;
  stopped.stop = "END";
  const std::string body = answer(model, kMessages, messages_body(), {stopped});
  EXPECT_THAT(body, HasSubstr(R"("stop_reason":"stop_sequence","stop_sequence":"END")"));
  stopped = kHello;
  stopped.reason = FinishReason::kLength;
  EXPECT_THAT(answer(model, kMessages, messages_body(), {stopped}),
              HasSubstr(R"("stop_reason":"max_tokens")"));
}

TEST(ApiAnswers, MessagesStreamTypedEvents) {
  const TestModel model;
  EXPECT_EQ(
      answer(model, kMessages, messages_body(R"(,"stream":true)"), {kHello}),
      "event: message_start\n"
      R"(data: {"type":"message_start","message":{"id":"msg_7","type":"message",)"
      R"("role":"assistant","model":"test","content":[],"stop_reason":null,"stop_sequence":null,)"
      R"("usage":{"input_tokens":21,"cache_creation_input_tokens":0,)"
      R"("cache_read_input_tokens":0,"output_tokens":0}}})"
      "\n\nevent: content_block_start\n"
      R"(data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}})"
      "\n\nevent: content_block_delta\n"
      R"(data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"He"}})"
      "\n\nevent: content_block_delta\n"
      R"(data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"llo"}})"
      "\n\nevent: content_block_stop\n"
      R"(data: {"type":"content_block_stop","index":0})"
      "\n\nevent: message_delta\n"
      R"(data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},)"
      R"("usage":{"input_tokens":21,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,)"
      R"("output_tokens":3}})"
      "\n\nevent: message_stop\n"
      R"(data: {"type":"message_stop"})"
      "\n\n");
}

TEST(ApiAnswers, TokensOfMessagesAreCountedWithoutAModel) {
  const TestModel model;
  const auto exchange = opened(open_call(model, "/v1/messages/count_tokens",
                                         R"({"messages":[{"role":"user","content":"hi"}]})"));
  ASSERT_NE(exchange, nullptr);
  EXPECT_TRUE(exchange->take_requests().empty());
  EXPECT_EQ(exchange->model(), nullptr);
  std::string out;
  exchange->end(out);
  EXPECT_EQ(out, R"({"input_tokens":21})");
}

// --- Responses ----------------------------------------------------------------------------------

TEST(ApiAnswers, ResponsesAnswerWithItems) {
  const TestModel model;
  const OrderedJson body = OrderedJson::parse(
      answer(model, kResponses,
             R"({"input":"hi","instructions":"be brief","temperature":0.5,"metadata":{"k":"v"}})",
             {kHello}));
  EXPECT_EQ(body["id"], "resp_7");
  EXPECT_EQ(body["object"], "response");
  EXPECT_EQ(body["status"], "completed");
  EXPECT_EQ(body["instructions"], "be brief");
  EXPECT_EQ(body["temperature"], 0.5);
  EXPECT_EQ(body["metadata"]["k"], "v");
  EXPECT_EQ(body["store"], false);
  EXPECT_EQ(
      dump(body["output"]),
      R"([{"id":"msg_7_0","type":"message","status":"completed","role":"assistant",)"
      R"("content":[{"type":"output_text","text":"Hello","annotations":[],"logprobs":[]}]}])");
  EXPECT_EQ(body["usage"]["output_tokens"], 3);
  EXPECT_EQ(body["usage"]["output_tokens_details"]["reasoning_tokens"], 0);
}

TEST(ApiAnswers, ResponsesStreamTypedEventsInOrder) {
  const TestModel model;
  const auto all = frames(answer(model, kResponses, R"({"input":"hi","stream":true})", {kHello}));
  std::vector<std::string> types;
  for (size_t i = 0; i < all.size(); ++i) {
    types.push_back(all[i].event);
    EXPECT_EQ(all[i].data["type"], all[i].event);
    EXPECT_EQ(all[i].data["sequence_number"], i);
  }
  EXPECT_THAT(types, ElementsAre("response.created", "response.in_progress",
                                 "response.output_item.added", "response.content_part.added",
                                 "response.output_text.delta", "response.output_text.delta",
                                 "response.output_text.done", "response.content_part.done",
                                 "response.output_item.done", "response.completed"));
  EXPECT_EQ(all[0].data["response"]["status"], "in_progress");
  EXPECT_EQ(dump(all[2].data["item"]),
            R"({"id":"msg_7_0","type":"message","status":"in_progress","role":"assistant",)"
            R"("content":[]})");
  EXPECT_EQ(dump(all[4].data),
            R"({"type":"response.output_text.delta","sequence_number":4,"item_id":"msg_7_0",)"
            R"("output_index":0,"content_index":0,"delta":"He","logprobs":[]})");
  EXPECT_EQ(all[6].data["text"], "Hello");
  EXPECT_EQ(all[9].data["response"]["output"][0]["content"][0]["text"], "Hello");
}

TEST(ApiAnswers, ResponsesCutShortAreIncomplete) {
  const TestModel model;
  Script cut = kHello;
  cut.reason = FinishReason::kLength;
  const OrderedJson body =
      OrderedJson::parse(answer(model, kResponses, R"({"input":"hi"})", {cut}));
  EXPECT_EQ(body["status"], "incomplete");
  EXPECT_EQ(body["incomplete_details"]["reason"], "max_output_tokens");
  EXPECT_EQ(body["output"][0]["status"], "incomplete");
  const auto all = frames(answer(model, kResponses, R"({"input":"hi","stream":true})", {cut}));
  EXPECT_EQ(all.back().event, "response.incomplete");
}

TEST(ApiAnswers, ResponsesGiveEveryLogprobOnce) {
  const TestModel model;
  const std::string more = R"({"input":"hi","top_logprobs":1)";
  const Script accent = script({"a", "", "é"});
  const OrderedJson body = OrderedJson::parse(answer(model, kResponses, more + "}", {accent}));
  const OrderedJson& logprobs = body["output"][0]["content"][0]["logprobs"];
  EXPECT_EQ(logprobs.size(), 3u);
  OrderedJson streamed = OrderedJson::array();
  for (const Frame& frame :
       frames(answer(model, kResponses, more + R"(,"stream":true})", {accent}))) {
    if (frame.event != "response.output_text.delta") continue;
    for (const OrderedJson& logprob : frame.data["logprobs"]) streamed.push_back(logprob);
  }
  EXPECT_EQ(streamed, logprobs);
}

// --- The rest -----------------------------------------------------------------------------------

std::string fixed_body(const TestModel& model,
                       const char* path,
                       const std::string& body,
                       const char* method = "POST") {
  std::string out;
  const auto exchange = opened(open_call(model, path, body, method));
  if (exchange) exchange->end(out);
  return out;
}

TEST(ApiAnswers, ModelsAreListed) {
  const TestModel model;
  const std::string one =
      R"({"id":"test","object":"model","created":1700000000,"owned_by":"quern","max_model_len":4096})";
  EXPECT_EQ(fixed_body(model, "/v1/models", "", "GET"),
            R"({"object":"list","data":[)" + one + "]}");
  EXPECT_EQ(fixed_body(model, "/v1/models/test", "", "GET"), one);
  EXPECT_EQ(fixed_body(model, "/v1/models/%74est", "", "HEAD"), one);
  EXPECT_EQ(refused(open_call(model, "/v1/models/a/b", "", "GET")).status, 404);
}

TEST(ApiAnswers, TextsAreTokenizedAndBack) {
  const TestModel model;
  EXPECT_EQ(fixed_body(model, "/tokenize", R"({"prompt":"ab<|im_end|>","return_token_strs":true})"),
            R"({"count":3,"max_model_len":4096,"tokens":[99,100,1],)"
            R"("token_strs":["a","b","<|im_end|>"]})");
  const OrderedJson chat = OrderedJson::parse(
      fixed_body(model, "/tokenize", R"({"messages":[{"role":"user","content":"hi"}]})"));
  EXPECT_EQ(chat["count"], 21);
  EXPECT_EQ(chat["tokens"].size(), 21u);
  EXPECT_TRUE(chat["token_strs"].is_null());
  EXPECT_EQ(fixed_body(model, "/detokenize", R"({"tokens":[99,100,1]})"),
            R"({"prompt":"ab<|im_end|>"})");
  EXPECT_EQ(refused(open_call(model, "/detokenize", R"({"tokens":[259]})")).param, "tokens");
}

TEST(ApiAnswers, UnknownPathsAndMethodsAreNamed) {
  const TestModel model;
  ApiError error = refused(open_call(model, "/v1/chat", "{}"));
  EXPECT_EQ(error.status, 404);
  EXPECT_EQ(error.code, "unknown_url");
  for (const char* method : {"GET", "PUT", "post", ""}) {
    error = refused(open_call(model, kChat, "{}", method));
    EXPECT_EQ(error.status, 405);
    EXPECT_THAT(error.message, HasSubstr("it takes POST"));
  }
  EXPECT_EQ(refused(open_call(model, "/v1/models", "", "POST")).status, 405);
  EXPECT_EQ(allowed_methods("/v1/models/x"), "GET, HEAD");
  EXPECT_EQ(allowed_methods(kChat), "POST");
  EXPECT_EQ(allowed_methods("/v1/models/"), "");
  EXPECT_EQ(allowed_methods("/v1/chat/completions/"), "");
}

TEST(ApiAnswers, ErrorsHaveTheFormOfTheirPath) {
  const ApiError error = {
      .status = 429, .type = "rate_limit_error", .code = "c", .param = "p", .message = "m"};
  EXPECT_EQ(api_error_body(kChat, error, "req-1"),
            R"({"error":{"message":"m","type":"rate_limit_error","param":"p","code":"c"}})");
  for (const auto& [status, type] :
       std::vector<std::pair<int, std::string>>{{400, "invalid_request_error"},
                                                {401, "authentication_error"},
                                                {403, "permission_error"},
                                                {404, "not_found_error"},
                                                {413, "request_too_large"},
                                                {429, "rate_limit_error"},
                                                {500, "api_error"},
                                                {503, "overloaded_error"}}) {
    EXPECT_EQ(api_error_body(kMessages, {.status = status, .message = "m"}, "req-1"),
              R"({"type":"error","error":{"type":")" + type +
                  R"(","message":"m"},"request_id":"req-1"})");
  }
}

// --- The document -------------------------------------------------------------------------------

TEST(ApiAnswers, TheDocumentDescribesEveryEndpoint) {
  const TestModel model;
  const OrderedJson document = OrderedJson::parse(fixed_body(model, "/openapi.json", "", "GET"));
  EXPECT_EQ(document["openapi"], "3.1.0");
  for (const Endpoint& endpoint : api_endpoints()) {
    const OrderedJson& path = document["paths"][std::string(endpoint.path)];
    const OrderedJson& operation = path[endpoint.method == "GET" ? "get" : "post"];
    EXPECT_EQ(operation["operationId"], std::string(endpoint.name));
    EXPECT_TRUE(operation["responses"].contains("200")) << endpoint.path;
    EXPECT_TRUE(operation["responses"].contains("default")) << endpoint.path;
    EXPECT_EQ(operation.contains("requestBody"), endpoint.request != nullptr) << endpoint.path;
  }
}

TEST(ApiAnswers, BodiesAreWhatTheDocumentSays) {
  const TestModel model;
  Script cut = kHello;
  cut.reason = FinishReason::kLength;
  const std::string full = R"(,"logprobs":true,"top_logprobs":2,"return_token_ids":true)"
                           R"(,"prompt_logprobs":1,"stop":"x")";
  const std::pair<const char*, std::string> calls[] = {
      {kChat, chat_body()},
      {kChat, chat_body(full)},
      {kText, R"({"prompt":"ab"})"},
      {kText, R"({"prompt":"ab","logprobs":2,"echo":true,"return_token_ids":true})"},
      {kMessages, messages_body()},
      {kResponses, R"({"input":"hi"})"},
      {kResponses, R"({"input":"hi","top_logprobs":1})"}};
  for (const auto& [path, body] : calls) {
    for (const Script& played : {kHello, cut}) {
      const OrderedJson json = OrderedJson::parse(answer(model, path, body, {played}));
      for (const Endpoint& endpoint : api_endpoints()) {
        if (endpoint.path != std::string_view(path)) continue;
        const auto checked = check(endpoint.response(), json);
        EXPECT_TRUE(checked) << path << ": " << checked.error().message << "\n" << dump(json);
      }
    }
  }
}

}  // namespace
}  // namespace quern
