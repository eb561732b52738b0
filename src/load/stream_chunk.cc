#include "load/stream_chunk.h"

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace quern {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxMessageBytes = 300;
constexpr int64_t kMaxTokens = int64_t{1} << 40;  // sums of counts stay far from overflow

const Json* find(const Json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

bool has_text(const Json& object, const char* key) {
  const Json* value = find(object, key);
  return value != nullptr && value->is_string() && !value->get_ref<const std::string&>().empty();
}

int64_t count_at(const Json& object, const char* key) {
  const Json* value = find(object, key);
  if (value == nullptr || !value->is_number_integer()) return 0;
  return std::clamp<int64_t>(value->get<int64_t>(), 0, kMaxTokens);
}

bool has_output(const Json& choice) {
  if (has_text(choice, "text")) return true;
  const Json* delta = find(choice, "delta");
  if (delta == nullptr) return false;
  const Json* calls = find(*delta, "tool_calls");
  return has_text(*delta, "content") || has_text(*delta, "reasoning_content") ||
         has_text(*delta, "reasoning") || has_text(*delta, "refusal") ||
         (calls != nullptr && !calls->empty());
}

StreamUsage read_usage(const Json& usage) {
  StreamUsage out{.prompt_tokens = count_at(usage, "prompt_tokens"),
                  .completion_tokens = count_at(usage, "completion_tokens"),
                  .total_tokens = count_at(usage, "total_tokens")};
  if (const Json* details = find(usage, "prompt_tokens_details")) {
    out.cached_tokens = count_at(*details, "cached_tokens");
  }
  return out;
}

std::string one_line(std::string_view text) {
  std::string line(text.substr(0, kMaxMessageBytes));
  std::replace_if(
      line.begin(), line.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20; }, ' ');
  return line;
}

std::string text_of(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// What an object with an error says.
std::string message_of(const Json& error) {
  for (const char* key : {"message", "detail"}) {
    if (const Json* message = find(error, key)) return one_line(text_of(*message));
  }
  return one_line(text_of(error));
}

}  // namespace

Result<StreamChunk> read_stream_chunk(std::string_view data) {
  StreamChunk chunk;
  if (data == "[DONE]") {
    chunk.done = true;
    return chunk;
  }
  const Json event = Json::parse(data, nullptr, false);
  if (!event.is_object()) {
    return Error{ErrorCode::kConflict,
                 fmt::format("an event of the stream is no JSON object: {}", one_line(data))};
  }
  if (const Json* error = find(event, "error")) {
    chunk.error = message_of(*error);
    if (chunk.error.empty()) chunk.error = "an error without a message";
    return chunk;
  }
  if (const Json* usage = find(event, "usage")) chunk.usage = read_usage(*usage);
  const Json* choices = find(event, "choices");
  if (choices == nullptr || !choices->is_array()) return chunk;
  for (const Json& choice : *choices) {
    chunk.choices = true;
    chunk.output |= has_output(choice);
    if (has_text(choice, "finish_reason")) {
      chunk.finish_reason = choice["finish_reason"].get<std::string>();
    }
  }
  return chunk;
}

std::string error_message(std::string_view body) {
  const Json json = Json::parse(body, nullptr, false);
  if (!json.is_object()) return one_line(body);
  const Json* error = find(json, "error");
  return error == nullptr ? message_of(json) : message_of(*error);
}

}  // namespace quern
