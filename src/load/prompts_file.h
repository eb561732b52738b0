// Prompts and conversations of a file, one JSON value a line.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/result.h"

namespace quern {

struct PromptLine {
  std::string text{};                 // without messages
  nlohmann::ordered_json messages{};  // null without a conversation
  std::optional<int64_t> output_tokens{};
};

// Each line is a string, {"prompt": TEXT}, {"messages": [{"role", "content"}...]} or
// {"conversations": [{"from": "human" or "gpt", "value"}...]}, of which the last of the model's
// turns is left off; an object may also give "output_tokens" (or "max_tokens"). Empty lines are
// skipped. Errors: as read_file(), and kInvalidArgument naming the line.
Result<std::vector<PromptLine>> read_prompts_file(const std::filesystem::path& path);

}  // namespace quern
