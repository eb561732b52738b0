#include "text/chat_template.h"

#include <fmt/format.h>

#include "base/json.h"
#include "text/jinja_ast.h"
#include "text/jinja_input.h"
#include "text/jinja_interpreter.h"
#include "text/jinja_parser.h"
#include "text/jinja_text.h"

namespace quern {
namespace {

using jinja::Value;

// What add_generation_prompt and the rest look like to the template.
Result<Unit> define_input(jinja::Interpreter& interpreter,
                          jinja::Runtime& runtime,
                          const ChatTemplateInput& input) {
  const auto define_json = [&](std::string_view name, const OrderedJson& json) -> Result<Unit> {
    const Value value = QUERN_TRY(jinja::from_json(runtime, json, name));
    return interpreter.define(name, value);
  };
  const auto define_token = [&](std::string_view name, std::string_view token) -> Result<Unit> {
    const Value value = QUERN_TRY(runtime.text(token));
    return interpreter.define(name, value);
  };
  if (!input.variables.is_object()) {
    return jinja::template_error("chat template: the variables are not a JSON object");
  }
  for (const auto& [name, value] : input.variables.items()) {
    QUERN_TRY(define_json(name, value));
  }
  QUERN_TRY(define_json("messages", input.messages));
  QUERN_TRY(define_json("tools", input.tools));
  QUERN_TRY(define_json("documents", input.documents));
  QUERN_TRY(interpreter.define("add_generation_prompt", Value::from(input.add_generation_prompt)));
  QUERN_TRY(define_token("bos_token", input.bos_token));
  QUERN_TRY(define_token("eos_token", input.eos_token));
  return Unit{};
}

}  // namespace

std::string concatenate(const std::vector<TemplateSegment>& segments) {
  std::string text;
  for (const TemplateSegment& segment : segments) text += segment.text;
  return text;
}

ChatTemplate::ChatTemplate(std::unique_ptr<const jinja::Template> parsed, ChatTemplateLimits limits)
    : parsed_(std::move(parsed)), limits_(limits) {}

ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

Result<ChatTemplate> ChatTemplate::parse(std::string_view source, ChatTemplateLimits limits) {
  if (static_cast<int64_t>(source.size()) > limits.template_bytes) {
    return jinja::template_error(
        fmt::format("the chat template has {} bytes, at most {} are supported", source.size(),
                    limits.template_bytes));
  }
  if (const size_t wrong = jinja::find_invalid_utf8(source); wrong != std::string_view::npos) {
    return jinja::syntax_error(source.substr(0, wrong), wrong, "not valid UTF-8");
  }
  const std::string normalized = jinja::normalize_newlines(source);
  return ChatTemplate(QUERN_TRY(jinja::parse_template(normalized)), limits);
}

Result<std::vector<TemplateSegment>> ChatTemplate::render(const ChatTemplateInput& input) const {
  jinja::Runtime runtime(limits_, input.now);
  jinja::Interpreter interpreter(*parsed_, runtime);
  QUERN_TRY(define_input(interpreter, runtime, input));
  return interpreter.run();
}

}  // namespace quern
