// Base64 (RFC 4648, section 4), in which tiktoken files write their tokens.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace quern {

// With padding; the empty text stands for no bytes. Empty when malformed.
std::optional<std::string> decode_base64(std::string_view text);

}  // namespace quern
