// One event of a streamed completion, chat or plain, as any OpenAI-compatible server sends it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace quern {

struct StreamUsage {
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  int64_t total_tokens = 0;
  int64_t cached_tokens = 0;  // of the prompt
};

struct StreamChunk {
  bool done = false;     // "[DONE]"
  bool choices = false;  // it belongs to an answer and is more than a message about the stream
  bool output = false;   // it carries text, reasoning or a part of a tool call
  std::string finish_reason{};
  std::optional<StreamUsage> usage{};
  std::string error{};  // what the server says went wrong
};

// Reads the data of an event. Errors: kConflict for what is no JSON object.
Result<StreamChunk> read_stream_chunk(std::string_view data);

// The message of an error's body: that of {"error": {"message"}}, {"error"}, {"message"} or
// {"detail"}, else its first bytes. One line.
std::string error_message(std::string_view body);

}  // namespace quern
