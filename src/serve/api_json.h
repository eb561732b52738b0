// JSON of request and answer bodies: reading within limits, writing as valid UTF-8.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "serve/api_error.h"
#include "text/chat_template.h"

namespace quern {

inline constexpr int kMaxBodyDepth = 64;
inline constexpr int64_t kMaxBodyValues = int64_t{1} << 20;  // numbers, strings, arrays, ... in all

// Parses a body, which keeps the order of keys. Errors: 400 for anything that is not one JSON
// object of valid UTF-8 (lone surrogates, NaN, numbers beyond a double and a key given twice in one
// object included), and for one nested deeper or with more values than the limits above.
ApiResult<OrderedJson> parse_body(std::string_view body);

// The text of a value; bytes that are not valid UTF-8 become U+FFFD.
std::string dump(const OrderedJson& value);

// `text` as a JSON string with its quotes, appended to `out`.
void append_json_string(std::string_view text, std::string& out);

// A value as an error message quotes it: whole, or its first 80 bytes.
std::string shown(const OrderedJson& value);

// The member or nullptr when it is absent or null. Requires object.is_object().
const OrderedJson* find(const OrderedJson& object, std::string_view key);

// Members of an object that its schema has already approved; each returns `fallback` when the key
// is absent or null.
std::string text_or(const OrderedJson& object, std::string_view key, std::string_view fallback);
int64_t integer_or(const OrderedJson& object, std::string_view key, int64_t fallback);
double number_or(const OrderedJson& object, std::string_view key, double fallback);

// True only when the member is `true`.
bool is_true(const OrderedJson& object, std::string_view key);

// An integer as JSON Schema has it: 2 and 2.0 alike. Requires a number without fraction within
// int64_t.
int64_t as_integer(const OrderedJson& number);

}  // namespace quern
