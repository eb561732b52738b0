// A model to open calls on and a source of events, for the tests of the endpoints.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

#include "serve/api_json.h"
#include "serve/api_router.h"
#include "serve/exchange.h"
#include "serve/served_model.h"

namespace quern {

// A token for each byte and three special ones: 0 "<|im_start|>", 1 "<|im_end|>", byte b is 2 + b,
// 258 "<|python_tag|>".
inline std::unique_ptr<Tokenizer> make_byte_tokenizer() {
  OrderedJson vocabulary = {{"<|im_start|>", 0}, {"<|im_end|>", 1}};
  const auto utf8 = [](int code_point) {
    if (code_point < 0x80) return std::string(1, static_cast<char>(code_point));
    return std::string{static_cast<char>(0xc0 | (code_point >> 6)),
                       static_cast<char>(0x80 | (code_point & 0x3f))};
  };
  int next = 256;  // where byte-level vocabularies put bytes that do not print
  for (int byte = 0; byte < 256; ++byte) {
    const bool prints = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte != 0xad);
    vocabulary[utf8(prints ? byte : next++)] = 2 + byte;
  }
  vocabulary["<|python_tag|>"] = 258;
  OrderedJson added = OrderedJson::array();
  for (const char* special : {"<|im_start|>", "<|im_end|>", "<|python_tag|>"}) {
    added.push_back({{"id", vocabulary[special]},
                     {"content", special},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  const OrderedJson json = {
      {"version", "1.0"},
      {"added_tokens", added},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
      {"post_processor", nullptr},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", OrderedJson::array()}}}};
  auto tokenizer = Tokenizer::from_json(json.dump(), "test", R"({"eos_token": "<|im_end|>"})");
  if (!tokenizer) ADD_FAILURE() << tokenizer.error().message;
  return tokenizer ? std::move(*tokenizer) : nullptr;
}

// Prints what the endpoints hand over: tools, calls and variables included.
inline constexpr const char* kTestTemplate =
    "{%- if tools %}{{ '<|im_start|>system\\n# Tools <tools>' }}{% for tool in tools %}"
    "{{ tool | tojson }}{% endfor %}"
    "{{ '</tools>, answer in <tool_call></tool_call><|im_end|>\\n' }}{% endif %}"
    "{%- if documents %}{{ documents | tojson }}{% endif %}"
    "{%- for message in messages %}{{ '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.reasoning_content %}({{ message.reasoning_content }}){% endif %}"
    "{{ message.content }}"
    "{%- for call in message.tool_calls %}<tool_call>{{ call.function | tojson }}</tool_call>"
    "{% endfor %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and not enable_thinking %}"
    "{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif %}";

class TestModel {
 public:
  explicit TestModel(std::string chat_template = kTestTemplate)
      : tokenizer_(make_byte_tokenizer()),
        template_(std::move(*ChatTemplate::parse(chat_template))) {
    model.id = "test";
    model.created_unix_s = 1700000000;
    model.fingerprint = "fp_test";
    model.tokenizer = tokenizer_.get();
    model.chat_template = &template_;
    model.chat_template_source = std::move(chat_template);
    model.eos_ids = {1};
    model.hidden = 4;
    model.limits = {.vocabulary = 259, .context_tokens = 4096, .cache_tokens = 8192};
    models.models = {&model};
  }

  const Tokenizer& tokenizer() const { return *tokenizer_; }

  ServedModel model;
  ServedModels models;

 private:
  std::unique_ptr<Tokenizer> tokenizer_;
  ChatTemplate template_;
};

inline OpenedExchange open_call(const TestModel& model,
                                std::string_view path,
                                std::string_view body,
                                std::string_view method = "POST") {
  const ApiCall call = {
      .body = body, .request_id = "req-7", .created_unix_s = 1700000001, .seed = 99};
  return open_exchange(model.models, method, path, call);
}

// The exchange, which the test expects to be opened.
inline std::unique_ptr<Exchange> opened(OpenedExchange exchange) {
  if (const auto* error = std::get_if<ApiError>(&exchange)) {
    ADD_FAILURE() << error->status << " " << error->param << ": " << error->message;
    return nullptr;
  }
  return std::move(std::get<std::unique_ptr<Exchange>>(exchange));
}

// The error, which the test expects.
inline ApiError refused(OpenedExchange exchange) {
  const auto* error = std::get_if<ApiError>(&exchange);
  EXPECT_NE(error, nullptr) << "the call was not refused";
  return error == nullptr ? ApiError{} : *error;
}

// One answer as the engine tells it.
struct Script {
  std::vector<std::string> texts;  // of each token
  FinishReason reason = FinishReason::kStop;
  std::string stop;
  std::string error;
  int64_t cached_tokens = 0;
};

inline TokenEvent token_event(const Request& request, const std::string& text) {
  TokenEvent event;
  event.token = text.empty() ? 1 : 2 + static_cast<unsigned char>(text.front());
  event.text = text;
  if (request.top_logprobs) {
    event.logprobs = Logprobs{-0.5f, {}};
    for (int i = 0; i < *request.top_logprobs; ++i) {
      event.logprobs->top.push_back({event.token + i, -0.5f - static_cast<float>(i)});
    }
  }
  return event;
}

inline void play(Exchange& exchange, const std::vector<Script>& scripts, std::string& out) {
  const std::vector<Request> requests = exchange.take_requests();
  ASSERT_EQ(requests.size(), scripts.size());
  size_t longest = 0;
  for (const Script& script : scripts) longest = std::max(longest, script.texts.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    if (!requests[i].prompt_logprobs) continue;
    PromptLogprobsEvent event;
    event.logprobs.resize(requests[i].prompt.size() - 1, Logprobs{-1.0f, {{66, -0.25f}}});
    exchange.on_event(i, event, out);
  }
  for (size_t step = 0; step < longest; ++step) {
    for (size_t i = 0; i < scripts.size(); ++i) {
      if (step >= scripts[i].texts.size()) continue;
      exchange.on_event(i, token_event(requests[i], scripts[i].texts[step]), out);
    }
  }
  for (size_t i = 0; i < scripts.size(); ++i) {
    FinishedEvent finished;
    finished.reason = scripts[i].reason;
    finished.stop = scripts[i].stop;
    finished.error = scripts[i].error;
    finished.usage = {static_cast<int64_t>(requests[i].prompt.size()),
                      static_cast<int64_t>(scripts[i].texts.size()), scripts[i].cached_tokens};
    exchange.on_event(i, finished, out);
  }
  exchange.end(out);
}

// All bytes of a call whose answers are the scripts.
inline std::string answer(const TestModel& model,
                          std::string_view path,
                          std::string_view body,
                          const std::vector<Script>& scripts) {
  std::string out;
  const std::unique_ptr<Exchange> exchange = opened(open_call(model, path, body));
  if (exchange) play(*exchange, scripts, out);
  return out;
}

// The only request of a call.
inline Request only_request(const TestModel& model, std::string_view path, std::string_view body) {
  const std::unique_ptr<Exchange> exchange = opened(open_call(model, path, body));
  if (!exchange) return {};
  std::vector<Request> requests = exchange->take_requests();
  EXPECT_EQ(requests.size(), 1u);
  return std::move(requests.front());
}

struct Frame {
  std::string event;
  OrderedJson data;  // a string for "[DONE]"
};

// Every frame of a stream, in order.
inline std::vector<Frame> frames(const std::string& stream) {
  std::vector<Frame> all;
  size_t at = 0;
  while (at < stream.size()) {
    const size_t end = stream.find("\n\n", at);
    if (end == std::string::npos) {
      ADD_FAILURE() << "the stream ends within a frame: " << stream.substr(at);
      break;
    }
    std::string text = stream.substr(at, end - at);
    Frame frame;
    if (text.starts_with("event: ")) {
      const size_t line = text.find('\n');
      frame.event = text.substr(7, line - 7);
      text.erase(0, line + 1);
    }
    EXPECT_TRUE(text.starts_with("data: ")) << text;
    text.erase(0, 6);
    frame.data = text == "[DONE]" ? OrderedJson(text) : OrderedJson::parse(text);
    all.push_back(std::move(frame));
    at = end + 2;
  }
  return all;
}

}  // namespace quern
