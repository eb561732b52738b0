#include "serve/api_prompt.h"

#include <algorithm>
#include <ctime>

#include <fmt/format.h>

#include "serve/api_json.h"

namespace quern {
namespace {

using Segments = std::vector<TemplateSegment>;

// Names that a template already has.
constexpr std::string_view kReserved[] = {"messages",  "tools",     "documents",
                                          "bos_token", "eos_token", "add_generation_prompt"};

ApiResult<Unit> check_variables(const ServedModel& model, const OrderedJson& variables) {
  for (const auto& entry : variables.get_ref<const OrderedJson::object_t&>()) {
    const std::string& name = entry.first;
    const bool reserved =
        std::find(std::begin(kReserved), std::end(kReserved), name) != std::end(kReserved);
    if (!reserved && template_mentions(model, name)) continue;
    const std::string field = "chat_template_kwargs." + name.substr(0, 64);
    return invalid_request(field,
                           fmt::format("{} {}", field,
                                       reserved ? "is set by the server; it must be left out"
                                                : "is no variable of this model's chat template"));
  }
  return Unit{};
}

ApiResult<Unit> check_mentions(const ServedModel& model, const ChatPrompt& prompt) {
  if (model.chat_template == nullptr) {
    return invalid_request(
        "model", fmt::format("model {} has no chat template; use /v1/completions", model.id));
  }
  if (!prompt.tools.is_null() && !template_mentions(model, "tools")) {
    return invalid_request("tools", "the chat template of this model does not take tools");
  }
  if (!prompt.documents.is_null() && !template_mentions(model, "documents")) {
    return invalid_request("documents", "the chat template of this model does not take documents");
  }
  return check_variables(model, prompt.variables);
}

ChatTemplateInput template_input(const ServedModel& model, const ChatPrompt& prompt) {
  ChatTemplateInput input;
  input.messages = prompt.messages;
  input.tools = prompt.tools;
  input.documents = prompt.documents;
  input.add_generation_prompt = prompt.end == PromptEnd::kAnswer;
  input.bos_token = model.bos_token;
  input.eos_token = model.eos_token;
  input.variables = prompt.variables;
  const auto now = static_cast<std::time_t>(prompt.now_unix_s);
  ::localtime_r(&now, &input.now);
  return input;
}

// Calls whose arguments are objects become calls whose arguments are their text.
bool write_arguments_as_text(OrderedJson& messages) {
  bool changed = false;
  for (OrderedJson& message : messages) {
    const auto calls = message.find("tool_calls");
    if (calls == message.end() || !calls->is_array()) continue;
    for (OrderedJson& call : *calls) {
      OrderedJson& arguments = call["function"]["arguments"];
      if (!arguments.is_object()) continue;
      arguments = dump(arguments);
      changed = true;
    }
  }
  return changed;
}

// Most templates read arguments as objects, some put them into strings: what one refuses is tried
// the other way.
Result<Segments> render(const ServedModel& model, const ChatPrompt& prompt) {
  ChatTemplateInput input = template_input(model, prompt);
  Result<Segments> rendered = model.chat_template->render(input);
  if (rendered || !write_arguments_as_text(input.messages)) return rendered;
  Result<Segments> again = model.chat_template->render(input);
  return again ? std::move(again) : std::move(rendered);
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

// Drops what the template wrote after the last message's text.
ApiResult<Unit> cut_after_last_message(const OrderedJson& messages, Segments& segments) {
  const std::string content = text_or(messages.back(), "content", "");
  const std::string_view wanted = trimmed(content);
  if (wanted.empty() || text_or(messages.back(), "role", "") != "assistant") {
    return invalid_request("continue_final_message",
                           "continue_final_message needs a last message of the assistant that "
                           "has text");
  }
  while (!segments.empty()) {
    TemplateSegment& last = segments.back();
    const size_t at =
        last.origin == TextOrigin::kMessage ? last.text.rfind(wanted) : std::string::npos;
    if (at != std::string::npos) {
      // The spaces that end the message are the caller's to decide, as far as the template kept
      // them.
      const size_t end = last.text.find_first_not_of(" \t\r\n", at + wanted.size());
      if (end != std::string::npos) last.text.resize(at + wanted.size());
      return Unit{};
    }
    segments.pop_back();
  }
  return invalid_request("continue_final_message",
                         "the chat template does not print the last message as it is, so that it "
                         "cannot be continued");
}

std::vector<int32_t> encode(const Tokenizer& tokenizer, const Segments& segments) {
  std::vector<TextSegment> texts;
  for (const TemplateSegment& segment : segments) {
    texts.push_back({segment.text, segment.origin == TextOrigin::kTemplate
                                       ? SpecialTokens::kParse
                                       : SpecialTokens::kAsText});
  }
  return tokenizer.encode(texts);
}

}  // namespace

bool template_mentions(const ServedModel& model, std::string_view name) {
  const std::string& source = model.chat_template_source;
  const auto is_word = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  };
  if (name.empty()) return false;
  for (size_t at = source.find(name); at != std::string::npos; at = source.find(name, at + 1)) {
    const bool begins = at == 0 || !is_word(source[at - 1]);
    const size_t end = at + name.size();
    if (begins && (end == source.size() || !is_word(source[end]))) return true;
  }
  return false;
}

ApiResult<RenderedPrompt> render_chat(const ServedModel& model, const ChatPrompt& prompt) {
  QUERN_TRY(check_mentions(model, prompt));
  Result<Segments> segments = render(model, prompt);
  if (!segments) {
    return invalid_request("messages", "the chat template: " + segments.error().message);
  }
  if (prompt.end == PromptEnd::kContinue) {
    QUERN_TRY(cut_after_last_message(prompt.messages, *segments));
  }
  return RenderedPrompt{encode(*model.tokenizer, *segments), concatenate(*segments)};
}

std::string content_text(const OrderedJson& content) {
  if (content.is_string()) return content.get<std::string>();
  std::string text;
  if (!content.is_array()) return text;
  for (size_t i = 0; i < content.size(); ++i) {
    if (i > 0) text += '\n';
    text += content[i].contains("text") ? text_or(content[i], "text", "")
                                        : text_or(content[i], "refusal", "");
  }
  return text;
}

OrderedJson template_tool_call(std::string id, std::string name, const std::string& arguments) {
  OrderedJson value = arguments;
  if (arguments.find_first_not_of(" \t\r\n") == std::string::npos) {
    value = OrderedJson::object();
  } else if (ApiResult<OrderedJson> parsed = parse_body(arguments)) {
    value = std::move(*parsed);
  }
  return {{"id", std::move(id)},
          {"type", "function"},
          {"function", {{"name", std::move(name)}, {"arguments", std::move(value)}}}};
}

}  // namespace quern
