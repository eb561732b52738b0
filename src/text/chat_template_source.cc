#include <filesystem>

#include <fmt/format.h>

#include "base/file.h"
#include "base/json.h"
#include "text/chat_template.h"

namespace quern {
namespace {

constexpr uint64_t kMaxConfigBytes = uint64_t{64} << 20;
constexpr size_t kMaxKeys = 4096;  // an ordered object looks for every key among those before it

Error invalid(std::string message) {
  return Error{ErrorCode::kInvalidArgument, std::move(message)};
}

// True when some object of `json` has more than kMaxKeys keys. Requires the depth limit of
// parse_json.
bool too_many_keys(const Json& json) {
  if (json.is_object() && json.size() > kMaxKeys) return true;
  if (!json.is_structured()) return false;
  for (const Json& element : json) {
    if (too_many_keys(element)) return true;
  }
  return false;
}

Result<std::string> template_text(const Json& value, std::string_view field) {
  if (value.is_string()) return value.get<std::string>();
  return invalid(fmt::format("{}: expected a string, found {}", field, value.type_name()));
}

Result<std::string> named_template(const Json& list, std::string_view name) {
  std::string known;
  for (const Json& entry : list) {
    if (!entry.is_object() || !entry.contains("name") || !entry["name"].is_string() ||
        !entry.contains("template")) {
      return invalid("chat_template: expected a list of objects with name and template");
    }
    const std::string entry_name = entry["name"].get<std::string>();
    if (entry_name == name) return template_text(entry["template"], "chat_template.template");
    known += (known.empty() ? "" : ", ") + entry_name;
  }
  return Error{ErrorCode::kNotFound,
               fmt::format("chat_template: no template is named '{}' (there are: {})", name,
                           known.empty() ? "none" : known)};
}

}  // namespace

Result<OrderedJson> parse_ordered_json(std::string_view text, std::string_view source) {
  if (too_many_keys(QUERN_TRY(parse_json(text, source)))) {
    return invalid(fmt::format("{}: an object has more than {} keys", source, kMaxKeys));
  }
  return OrderedJson::parse(text);
}

Result<std::string> chat_template_from_tokenizer_config(std::string_view tokenizer_config_json,
                                                        std::string_view name) {
  const Json config = QUERN_TRY(parse_json(tokenizer_config_json, "tokenizer_config.json"));
  if (!config.is_object()) return invalid("tokenizer_config.json: expected an object");
  const auto found = config.find("chat_template");
  if (found == config.end() || found->is_null()) {
    return Error{ErrorCode::kNotFound, "tokenizer_config.json: no chat_template"};
  }
  if (found->is_array()) return named_template(*found, name);
  return template_text(*found, "tokenizer_config.json: chat_template");
}

Result<std::string> read_chat_template(const std::string& directory) {
  const std::filesystem::path root(directory);
  std::error_code ignored;
  if (std::filesystem::exists(root / "chat_template.jinja", ignored)) {
    return read_file(root / "chat_template.jinja", kMaxConfigBytes);
  }
  for (const char* name : {"chat_template.json", "tokenizer_config.json"}) {
    if (!std::filesystem::exists(root / name, ignored)) continue;
    const std::string text = QUERN_TRY(read_file(root / name, kMaxConfigBytes));
    Result<std::string> found = chat_template_from_tokenizer_config(text, "default");
    if (found || found.error().code != ErrorCode::kNotFound) return found;
  }
  return Error{ErrorCode::kNotFound,
               fmt::format("{}: no chat template (chat_template.jinja, chat_template.json or "
                           "chat_template of tokenizer_config.json)",
                           directory)};
}

}  // namespace quern
