// From a conversation or a text to the token ids that the model reads.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "serve/api_error.h"
#include "serve/served_model.h"

namespace quern {

// What comes after the last message.
enum class PromptEnd : uint8_t {
  kAnswer,    // the opening of the assistant's answer
  kNothing,   // the end of the last message
  kContinue,  // nothing: the answer goes on where the last message stops
};

// A conversation as templates know it: messages of role and content (a string), assistant's
// tool_calls whose arguments are objects, tools as OpenAI writes them.
struct ChatPrompt {
  OrderedJson messages = OrderedJson::array();
  OrderedJson tools = nullptr;                    // null: none
  OrderedJson documents = nullptr;                // null: none
  OrderedJson variables = OrderedJson::object();  // chat_template_kwargs
  PromptEnd end = PromptEnd::kAnswer;
  int64_t now_unix_s = 0;  // what the template takes for the present
};

struct RenderedPrompt {
  std::vector<int32_t> tokens;
  std::string text;  // as rendered
};

// Text of messages, tools and variables never becomes a special token. Errors: 400 when the model
// has no chat template, when the template refuses or cannot continue the last message, and for
// tools and variables that the template does not look at.
ApiResult<RenderedPrompt> render_chat(const ServedModel& model, const ChatPrompt& prompt);

// Whether the template looks at a variable of that name.
bool template_mentions(const ServedModel& model, std::string_view name);

// The text of a message's content: a string, or parts of type "text" (and "refusal", "input_text",
// "output_text") joined by line breaks. Requires content that its schema has approved.
std::string content_text(const OrderedJson& content);

// An assistant's tool call as templates know it; arguments that are a JSON object become one.
OrderedJson template_tool_call(std::string id, std::string name, const std::string& arguments);

}  // namespace quern
