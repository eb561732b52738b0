#include "load/prompts_file.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/file.h"
#include "base/json.h"
#include "load/length.h"

namespace quern {
namespace {

using OrderedJson = nlohmann::ordered_json;

constexpr uint64_t kMaxFileBytes = uint64_t{256} << 20;

Error wrong(const std::string& source, const char* what) {
  return {ErrorCode::kInvalidArgument, fmt::format("{}: {}", source, what)};
}

Result<OrderedJson> read_messages(const Json& list, const std::string& source) {
  if (!list.is_array() || list.empty()) return wrong(source, "\"messages\" is no list with turns");
  for (const Json& turn : list) {
    if (!turn.is_object() || !turn.contains("role") || !turn["role"].is_string() ||
        !turn.contains("content")) {
      return wrong(source, "a turn of \"messages\" has no \"role\" or no \"content\"");
    }
  }
  return OrderedJson(list);
}

Result<OrderedJson> read_conversation(const Json& list, const std::string& source) {
  OrderedJson messages = OrderedJson::array();
  if (!list.is_array()) return wrong(source, "\"conversations\" is no list");
  for (const Json& turn : list) {
    if (!turn.is_object() || !turn.contains("from") || !turn["from"].is_string() ||
        !turn.contains("value") || !turn["value"].is_string()) {
      return wrong(source, "a turn of \"conversations\" has no text in \"from\" or \"value\"");
    }
    const std::string from = turn["from"];
    const char* role = from == "human" || from == "user" ? "user"
                       : from == "system"                ? "system"
                                                         : "assistant";
    messages.push_back({{"role", role}, {"content", turn["value"]}});
  }
  while (!messages.empty() && messages.back()["role"] == "assistant") {
    messages.erase(messages.size() - 1);
  }
  if (messages.empty()) return wrong(source, "\"conversations\" has no turn of a user");
  return messages;
}

Result<PromptLine> read_line(std::string_view line, const std::string& source) {
  const Json value = QUERN_TRY(parse_json(line, source));
  PromptLine prompt;
  if (value.is_string()) {
    prompt.text = value.get<std::string>();
    return prompt;
  }
  if (!value.is_object()) return wrong(source, "neither a string nor an object");
  const JsonObject object(value, source);
  for (const char* key : {"output_tokens", "max_tokens"}) {
    if (object.find(key) == nullptr) continue;
    prompt.output_tokens = QUERN_TRY(object.integer(key, std::nullopt, 1, kMaxLengthTokens));
  }
  if (const Json* messages = object.find("messages")) {
    prompt.messages = QUERN_TRY(read_messages(*messages, source));
  } else if (const Json* turns = object.find("conversations")) {
    prompt.messages = QUERN_TRY(read_conversation(*turns, source));
  } else {
    prompt.text = QUERN_TRY(object.string("prompt"));
  }
  return prompt;
}

}  // namespace

Result<std::vector<PromptLine>> read_prompts_file(const std::filesystem::path& path) {
  const std::string text = QUERN_TRY(read_file(path, kMaxFileBytes));
  std::vector<PromptLine> prompts;
  int64_t number = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = std::string_view(text).substr(at, end - at);
    at = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string source = fmt::format("{}, line {}", path.string(), number);
    prompts.push_back(QUERN_TRY(read_line(line, source)));
  }
  if (prompts.empty()) return wrong(path.string(), "no prompt in it");
  return prompts;
}

}  // namespace quern
