// How a model's chat template makes it write tool calls and reasoning.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace quern {

enum class ToolDialect {
  kNone,     // text alone
  kLlama3,   // {"name": ..., "parameters": {...}}, after <|python_tag|> or as the whole answer
  kHermes,   // <tool_call>{"name": ..., "arguments": {...}}</tool_call>: Hermes, Qwen
  kMistral,  // [TOOL_CALLS][{"name": ..., "arguments": {...}}], or [TOOL_CALLS]name[ARGS]{...}
  kHarmony,  // <|channel|>commentary to=functions.name<|message|>{...}: gpt-oss
};

// How the model marks its reasoning.
enum class ReasoningStyle {
  kNone,
  kThink,        // <think> ... </think>
  kThinkOpened,  // the template has written <think> already
};

struct OutputDialect {
  ToolDialect tools = ToolDialect::kNone;
  ReasoningStyle reasoning = ReasoningStyle::kNone;  // harmony has its own and needs none

  friend bool operator==(const OutputDialect&, const OutputDialect&) = default;
};

// The dialect that a chat template's text speaks of: its markers, looked for as they are written.
OutputDialect detect_dialect(std::string_view chat_template);

// Whether a rendered prompt ends in an opened <think>: the answer then begins with reasoning. Surer
// than the template's text where a request's variables switch reasoning on and off.
bool opens_reasoning(std::string_view prompt);

// "none", "llama3", "hermes", "mistral" or "harmony".
std::optional<ToolDialect> tool_dialect_of(std::string_view name);
std::string_view name_of(ToolDialect dialect);

}  // namespace quern
