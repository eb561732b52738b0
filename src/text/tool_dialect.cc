#include "text/tool_dialect.h"

#include <array>
#include <utility>

namespace quern {
namespace {

constexpr std::array<std::pair<std::string_view, ToolDialect>, 5> kNames = {{
    {"none", ToolDialect::kNone},
    {"llama3", ToolDialect::kLlama3},
    {"hermes", ToolDialect::kHermes},
    {"mistral", ToolDialect::kMistral},
    {"harmony", ToolDialect::kHarmony},
}};

bool holds(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

ToolDialect detect_tools(std::string_view chat_template) {
  if (holds(chat_template, "<|channel|>")) return ToolDialect::kHarmony;
  if (holds(chat_template, "[TOOL_CALLS]")) return ToolDialect::kMistral;
  if (holds(chat_template, "<tool_call>")) return ToolDialect::kHermes;
  const bool llama_call =
      holds(chat_template, "<|start_header_id|>") && holds(chat_template, "\"parameters\"");
  if (llama_call || holds(chat_template, "<|python_tag|>")) return ToolDialect::kLlama3;
  return ToolDialect::kNone;
}

// What the template writes last, behind its generation prompt, tells who opens the reasoning.
ReasoningStyle detect_reasoning(std::string_view chat_template) {
  if (!holds(chat_template, "<think>") && !holds(chat_template, "</think>"))
    return ReasoningStyle::kNone;
  const size_t prompt = chat_template.rfind("add_generation_prompt");
  if (prompt == std::string_view::npos) return ReasoningStyle::kThink;
  const std::string_view last = chat_template.substr(prompt);
  const bool opened = holds(last, "<think>") && !holds(last, "</think>");
  return opened ? ReasoningStyle::kThinkOpened : ReasoningStyle::kThink;
}

}  // namespace

OutputDialect detect_dialect(std::string_view chat_template) {
  OutputDialect out;
  out.tools = detect_tools(chat_template);
  if (out.tools != ToolDialect::kHarmony) out.reasoning = detect_reasoning(chat_template);
  return out;
}

bool opens_reasoning(std::string_view prompt) {
  const size_t end = prompt.find_last_not_of(" \t\r\n");
  return end != std::string_view::npos && prompt.substr(0, end + 1).ends_with("<think>");
}

std::optional<ToolDialect> tool_dialect_of(std::string_view name) {
  for (const auto& [known, dialect] : kNames) {
    if (known == name) return dialect;
  }
  return std::nullopt;
}

std::string_view name_of(ToolDialect dialect) { return kNames[static_cast<size_t>(dialect)].first; }

}  // namespace quern
