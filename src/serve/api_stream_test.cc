// Reasoning and tool calls in every endpoint: a stream's deltas come to what the body says, and how
// the text is cut into tokens changes nothing.
#include <functional>
#include <random>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "serve/api_endpoints.h"
#include "serve/api_test_support.h"

namespace quern {
namespace {

using testing::HasSubstr;

constexpr const char* kText =
    "<think>Zwölf?</think>Sure, é😀.\n"
    "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"x\": \"é\\n\", \"y\": [1, "
    "2]}}\n</tool_call>\n"
    "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>";

struct Endpoint4 {
  const char* path;
  const char* body;  // without its end
  OrderedJson (*from_body)(const OrderedJson& body);
  OrderedJson (*from_stream)(const std::vector<Frame>& frames);
};

// Each reduces an answer to {content, reasoning, calls: [[name, arguments]], end}.
OrderedJson empty_summary() {
  return {{"content", ""}, {"reasoning", ""}, {"calls", OrderedJson::array()}, {"end", nullptr}};
}

void append(OrderedJson& text, const OrderedJson& more) {
  text = text.get<std::string>() + more.get<std::string>();
}

OrderedJson chat_from_body(const OrderedJson& body) {
  OrderedJson summary = empty_summary();
  const OrderedJson& choice = body["choices"][0];
  const OrderedJson& message = choice["message"];
  if (message["content"].is_string()) summary["content"] = message["content"];
  if (message.contains("reasoning")) {
    EXPECT_EQ(message["reasoning"], message["reasoning_content"]);
    summary["reasoning"] = message["reasoning"];
  }
  if (message.contains("tool_calls")) {
    for (const OrderedJson& call : message["tool_calls"]) {
      summary["calls"].push_back(
          {call["id"], call["function"]["name"], call["function"]["arguments"]});
    }
  }
  summary["end"] = choice["finish_reason"];
  return summary;
}

OrderedJson chat_from_stream(const std::vector<Frame>& all) {
  OrderedJson summary = empty_summary();
  for (const Frame& frame : all) {
    if (frame.data == "[DONE]") continue;
    const OrderedJson& choice = frame.data["choices"][0];
    const OrderedJson& delta = choice["delta"];
    if (delta.contains("content")) append(summary["content"], delta["content"]);
    if (delta.contains("reasoning")) append(summary["reasoning"], delta["reasoning"]);
    if (delta.contains("tool_calls")) {
      for (const OrderedJson& call : delta["tool_calls"]) {
        if (call.contains("id")) {
          EXPECT_EQ(call["index"], summary["calls"].size());
          summary["calls"].push_back({call["id"], call["function"]["name"], ""});
        }
        append(summary["calls"][call["index"].get<size_t>()][2], call["function"]["arguments"]);
      }
    }
    summary["end"] = choice["finish_reason"];
  }
  return summary;
}

OrderedJson messages_from_body(const OrderedJson& body) {
  OrderedJson summary = empty_summary();
  for (const OrderedJson& block : body["content"]) {
    if (block["type"] == "text") append(summary["content"], block["text"]);
    if (block["type"] == "thinking") append(summary["reasoning"], block["thinking"]);
    if (block["type"] == "tool_use") {
      summary["calls"].push_back({block["id"], block["name"], block["input"]});
    }
  }
  summary["end"] = body["stop_reason"];
  return summary;
}

OrderedJson messages_from_stream(const std::vector<Frame>& all) {
  OrderedJson summary = empty_summary();
  std::vector<std::string> kinds;
  std::string arguments;
  for (const Frame& frame : all) {
    const OrderedJson& data = frame.data;
    EXPECT_EQ(data["type"], frame.event);
    if (frame.event == "content_block_start") {
      EXPECT_EQ(data["index"], kinds.size());
      kinds.push_back(data["content_block"]["type"]);
      arguments.clear();
      if (kinds.back() == "tool_use") {
        summary["calls"].push_back(
            {data["content_block"]["id"], data["content_block"]["name"], nullptr});
      }
    } else if (frame.event == "content_block_delta") {
      EXPECT_EQ(data["index"], kinds.size() - 1);
      const OrderedJson& delta = data["delta"];
      if (delta["type"] == "text_delta") append(summary["content"], delta["text"]);
      if (delta["type"] == "thinking_delta") append(summary["reasoning"], delta["thinking"]);
      if (delta["type"] == "input_json_delta")
        arguments += delta["partial_json"].get<std::string>();
    } else if (frame.event == "content_block_stop" && kinds.back() == "tool_use") {
      summary["calls"].back()[2] = OrderedJson::parse(arguments);
    } else if (frame.event == "message_delta") {
      summary["end"] = data["delta"]["stop_reason"];
    }
  }
  return summary;
}

OrderedJson responses_from_body(const OrderedJson& body) {
  OrderedJson summary = empty_summary();
  for (const OrderedJson& item : body["output"]) {
    if (item["type"] == "message") append(summary["content"], item["content"][0]["text"]);
    if (item["type"] == "reasoning") append(summary["reasoning"], item["content"][0]["text"]);
    if (item["type"] == "function_call") {
      summary["calls"].push_back({item["call_id"], item["name"], item["arguments"]});
    }
  }
  summary["end"] = body["status"];
  return summary;
}

OrderedJson responses_from_stream(const std::vector<Frame>& all) {
  OrderedJson summary = empty_summary();
  OrderedJson done = OrderedJson::array();
  for (const Frame& frame : all) {
    const OrderedJson& data = frame.data;
    if (frame.event == "response.output_item.added" && data["item"]["type"] == "function_call") {
      summary["calls"].push_back({data["item"]["call_id"], data["item"]["name"], ""});
    }
    if (frame.event == "response.output_text.delta") append(summary["content"], data["delta"]);
    if (frame.event == "response.reasoning_text.delta") append(summary["reasoning"], data["delta"]);
    if (frame.event == "response.function_call_arguments.delta") {
      append(summary["calls"].back()[2], data["delta"]);
    }
    if (frame.event == "response.output_item.done") done.push_back(data["item"]);
    if (frame.event == "response.completed") {
      EXPECT_EQ(data["response"]["output"], done) << "what was done is what the response holds";
      summary["end"] = data["response"]["status"];
    }
  }
  return summary;
}

constexpr Endpoint4 kEndpoints[] = {
    {"/v1/chat/completions",
     R"({"messages":[{"role":"user","content":"hi"}],"tools":[{"type":"function","function":{"name":"add"}},{"type":"function","function":{"name":"now"}}])",
     chat_from_body, chat_from_stream},
    {"/v1/messages",
     R"({"max_tokens":400,"messages":[{"role":"user","content":"hi"}],"tools":[{"name":"add","input_schema":{}},{"name":"now","input_schema":{}}])",
     messages_from_body, messages_from_stream},
    {"/v1/responses",
     R"({"input":"hi","tools":[{"type":"function","name":"add"},{"type":"function","name":"now"}])",
     responses_from_body, responses_from_stream},
};

std::vector<std::string> code_points(std::string_view text) {
  std::vector<std::string> parts;
  for (const char c : text) {
    if ((static_cast<unsigned char>(c) & 0xc0) != 0x80) parts.emplace_back();
    parts.back() += c;
  }
  return parts;
}

Script cut_at_random(std::string_view text, std::mt19937& random) {
  Script script;
  script.texts.emplace_back();
  const unsigned one_in = 1 + random() % 12;
  for (const std::string& part : code_points(text)) {
    if (random() % one_in == 0) script.texts.emplace_back();
    script.texts.back() += part;
  }
  return script;
}

OrderedJson body_summary(const TestModel& model, const Endpoint4& endpoint, const Script& script) {
  const std::string body = std::string(endpoint.body) + "}";
  return endpoint.from_body(OrderedJson::parse(answer(model, endpoint.path, body, {script})));
}

OrderedJson stream_summary(const TestModel& model,
                           const Endpoint4& endpoint,
                           const Script& script) {
  const std::string body = std::string(endpoint.body) + ",\"stream\":true}";
  return endpoint.from_stream(frames(answer(model, endpoint.path, body, {script})));
}

TEST(ApiStream, ReasoningAndCallsAreToldApart) {
  const TestModel model;
  Script whole;
  whole.texts = {kText};
  const OrderedJson chat = body_summary(model, kEndpoints[0], whole);
  EXPECT_EQ(chat["content"], "Sure, é😀.");
  EXPECT_EQ(chat["reasoning"], "Zwölf?");
  ASSERT_EQ(chat["calls"].size(), 2u);
  EXPECT_EQ(chat["calls"][0][0], "call_7_0_0");
  EXPECT_EQ(chat["calls"][0][1], "add");
  EXPECT_EQ(OrderedJson::parse(chat["calls"][0][2].get<std::string>()),
            OrderedJson::parse(R"({"x":"é\n","y":[1,2]})"));
  EXPECT_EQ(chat["calls"][1][1], "now");
  EXPECT_EQ(chat["end"], "tool_calls");
  EXPECT_EQ(body_summary(model, kEndpoints[1], whole)["end"], "tool_use");
  EXPECT_EQ(body_summary(model, kEndpoints[2], whole)["end"], "completed");
}

TEST(ApiStream, EveryCutOfTheTextGivesTheSameAnswer) {
  const TestModel model;
  Script whole;
  whole.texts = {kText};
  std::mt19937 random(7);
  for (const Endpoint4& endpoint : kEndpoints) {
    const OrderedJson expected = body_summary(model, endpoint, whole);
    for (int round = 0; round < 60; ++round) {
      const Script cut = cut_at_random(kText, random);
      ASSERT_EQ(body_summary(model, endpoint, cut), expected) << endpoint.path << round;
      ASSERT_EQ(stream_summary(model, endpoint, cut), expected) << endpoint.path << round;
    }
  }
}

TEST(ApiStream, BodiesWithCallsAreWhatTheDocumentSays) {
  const TestModel model;
  Script whole;
  whole.texts = {kText};
  for (const Endpoint4& shown : kEndpoints) {
    const OrderedJson json =
        OrderedJson::parse(answer(model, shown.path, std::string(shown.body) + "}", {whole}));
    for (const Endpoint& endpoint : api_endpoints()) {
      if (endpoint.path != std::string_view(shown.path)) continue;
      const auto checked = check(endpoint.response(), json);
      EXPECT_TRUE(checked) << checked.error().message << dump(json);
    }
  }
}

TEST(ApiStream, AnAnswerGoesBackIntoTheConversationAsItCame) {
  const TestModel model;
  Script whole;
  whole.texts = {kText};
  const OrderedJson body = OrderedJson::parse(
      answer(model, kEndpoints[0].path, std::string(kEndpoints[0].body) + "}", {whole}));
  const OrderedJson next = {
      {"messages",
       {{{"role", "user"}, {"content", "hi"}},
        body["choices"][0]["message"],
        {{"role", "tool"}, {"tool_call_id", "call_7_0_0"}, {"content", "3"}}}}};
  EXPECT_TRUE(opened(open_call(model, kEndpoints[0].path, dump(next))));
}

TEST(ApiStream, ReasoningTokensAreCounted) {
  const TestModel model;
  Script script;
  script.texts = {"<think>", "a", "b", "</think>", "c", "d"};
  const OrderedJson body = OrderedJson::parse(
      answer(model, kEndpoints[0].path, std::string(kEndpoints[0].body) + "}", {script}));
  EXPECT_EQ(body["usage"]["completion_tokens"], 6);
  EXPECT_GE(body["usage"]["completion_tokens_details"]["reasoning_tokens"], 2);
  EXPECT_LE(body["usage"]["completion_tokens_details"]["reasoning_tokens"], 4);
}

TEST(ApiStream, MarkersAreTextWhereNothingIsACall) {
  const TestModel model;
  Script script;
  script.texts = {"<tool_call>\n{\"name\": \"add\", \"arguments\": {}}\n</tool_call>"};
  const std::string plain = R"({"messages":[{"role":"user","content":"hi"}])";
  OrderedJson message =
      OrderedJson::parse(answer(model, kEndpoints[0].path, plain + "}", {script}))["choices"][0];
  EXPECT_EQ(message["message"]["content"], script.texts[0]);
  EXPECT_EQ(message["finish_reason"], "stop");
  script.texts = {"<think>"};
  message = OrderedJson::parse(answer(
      model, kEndpoints[0].path, plain + R"(,"guided_regex":"<think>"})", {script}))["choices"][0];
  EXPECT_EQ(message["message"]["content"], "<think>") << "a form is content alone";
}

TEST(ApiStream, OneCallWhereCallsAreNotParallel) {
  const TestModel model;
  Script whole;
  whole.texts = {kText};
  for (const char* more : {"", ",\"stream\":true"}) {
    const std::string body =
        std::string(kEndpoints[0].body) + ",\"parallel_tool_calls\":false" + more + "}";
    const std::string out = answer(model, kEndpoints[0].path, body, {whole});
    EXPECT_THAT(out, HasSubstr("\"add\""));
    EXPECT_THAT(out, testing::Not(HasSubstr("\"now\"")));
  }
}

// The engine leaves special tokens out of the text, markers of calls among them.
TEST(ApiStream, SpecialTokensThatAreMarkersAreRead) {
  TestModel model;
  model.model.chat_template_source = "<|python_tag|> tools";
  const auto exchange =
      opened(open_call(model, kEndpoints[0].path, std::string(kEndpoints[0].body) + "}"));
  ASSERT_NE(exchange, nullptr);
  std::string out;
  exchange->on_event(0, TokenEvent{0, 0, "", {}}, out);  // "<|im_start|>" is no marker
  exchange->on_event(0, TokenEvent{0, 258, "", {}}, out);
  exchange->on_event(0, TokenEvent{0, 70, R"({"name": "add", "parameters": {"x": 1}})", {}}, out);
  exchange->on_event(0, TokenEvent{0, 1, "", {}}, out);
  exchange->on_event(0, FinishedEvent{}, out);
  exchange->end(out);
  const OrderedJson message = OrderedJson::parse(out)["choices"][0]["message"];
  EXPECT_TRUE(message["content"].is_null()) << out;
  ASSERT_TRUE(message.contains("tool_calls")) << out;
  EXPECT_EQ(message["tool_calls"][0]["function"]["name"], "add");
}

}  // namespace
}  // namespace quern
