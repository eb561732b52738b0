// Numbers as people type them on a command line.
#pragma once

#include <optional>
#include <string>

namespace quern {

// The whole of `text` as a finite decimal number; nothing for anything else.
std::optional<double> read_number(const std::string& text);

// "500ms", "2s", "250us" as milliseconds; nothing for anything else, a missing unit included.
std::optional<double> read_duration_ms(const std::string& text);

}  // namespace quern
