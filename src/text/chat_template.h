// Chat templates: turns a conversation into the text that a model was trained on, as Jinja2 does
// when transformers configures it, and keeps apart what the template wrote from what the caller
// wrote.
#pragma once

#include <cstdint>
#include <ctime>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/result.h"

namespace quern {

// JSON whose objects keep their order: a template prints the keys of a tool as the caller wrote
// them.
using OrderedJson = nlohmann::ordered_json;

// Parses `text` like parse_json (base/json.h), keeping the order of keys. Errors: as parse_json.
Result<OrderedJson> parse_ordered_json(std::string_view text, std::string_view source);

enum class TextOrigin {
  kTemplate,  // written by the template's author, or bos_token and eos_token: may name special
              // tokens
  kMessage,   // came with the request: never a special token, whatever it spells
};

struct TemplateSegment {
  std::string text;
  TextOrigin origin = TextOrigin::kTemplate;

  friend bool operator==(const TemplateSegment&, const TemplateSegment&) = default;
};

// The whole rendering, without its marks.
std::string concatenate(const std::vector<TemplateSegment>& segments);

// What one template may cost. Exceeding any is kInvalidArgument and names the limit.
struct ChatTemplateLimits {
  int64_t template_bytes = int64_t{1} << 20;
  int64_t steps = 20'000'000;  // evaluated nodes and touched elements, about 10 ns each
  int64_t depth = 1000;        // nested evaluations; one macro call takes about seven
  int64_t output_bytes = int64_t{64} << 20;   // of the rendering
  int64_t memory_bytes = int64_t{512} << 20;  // all values that one rendering makes
  int64_t range_size = 100'000;               // elements of range(), as Jinja2's sandbox has it
};

// What a template sees. Every string of `messages`, `tools`, `documents` and `variables` is the
// caller's and becomes kMessage, keys of objects included.
struct ChatTemplateInput {
  OrderedJson messages = OrderedJson::array();
  OrderedJson tools = nullptr;      // null: `none` in the template, as without tools
  OrderedJson documents = nullptr;  // null: `none` in the template
  bool add_generation_prompt = false;
  std::string bos_token;
  std::string eos_token;
  OrderedJson variables = OrderedJson::object();  // more names, e.g. {"enable_thinking": false}
  std::tm now{};                                  // local time that strftime_now() prints
};

namespace jinja {
struct Template;  // jinja_ast.h
}

// A parsed template. Immutable after parse(): any number of threads may render at once.
class ChatTemplate {
 public:
  // Errors: kInvalidArgument naming line and column for anything that is not a template of the
  // supported subset, and for one larger or deeper than `limits`.
  static Result<ChatTemplate> parse(std::string_view source, ChatTemplateLimits limits = {});

  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ChatTemplate(const ChatTemplate&) = delete;
  ChatTemplate& operator=(const ChatTemplate&) = delete;
  ~ChatTemplate();

  // The rendering, adjacent segments of the same origin merged, none empty. A special token counts
  // only where it lies within one kTemplate segment; the text between special tokens is to be
  // encoded as a whole, whatever its origins, so that the tokens are those of the plain rendering.
  // Errors: kInvalidArgument when the template refuses (raise_exception), fails (an undefined
  // name's attribute, a type error) or exceeds a limit; the message names the line.
  Result<std::vector<TemplateSegment>> render(const ChatTemplateInput& input) const;

 private:
  ChatTemplate(std::unique_ptr<const jinja::Template> parsed, ChatTemplateLimits limits);

  std::unique_ptr<const jinja::Template> parsed_;
  ChatTemplateLimits limits_;
};

// The template named `name` ("default", "tool_use", ...) of a tokenizer_config.json, where
// "chat_template" is a string (then `name` does not matter) or a list of {name, template}.
// Errors: kInvalidArgument when the file or the field has another shape, kNotFound without a
// template of that name; the message lists the names that there are.
Result<std::string> chat_template_from_tokenizer_config(std::string_view tokenizer_config_json,
                                                        std::string_view name = "default");

// The text of the model's chat template: `directory`/chat_template.jinja, else
// chat_template.json, else tokenizer_config.json. Errors: kNotFound when none has one, and as
// above.
Result<std::string> read_chat_template(const std::string& directory);

}  // namespace quern
