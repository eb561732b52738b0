// Numbers and strings as a template spells them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace quern::jinja {

// Bytes of the float or integer literal that `text` starts with; 0 when it starts with none.
size_t float_literal_size(std::string_view text);
size_t integer_literal_size(std::string_view text);

// The value of a literal of exactly that size; underscores are skipped. Empty when an integer does
// not fit.
double parse_float_literal(std::string_view literal);
std::optional<int64_t> parse_integer_literal(std::string_view literal);

// Appends the meaning of the inside of a string literal to `out`, with Python's escapes. Returns
// what is wrong with it, empty when nothing is.
std::string_view unescape_string_literal(std::string_view literal, std::string& out);

}  // namespace quern::jinja
