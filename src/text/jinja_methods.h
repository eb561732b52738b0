// The methods of Python's str, list, tuple and dict that a sandboxed template may call.
#pragma once

#include <string_view>

#include "text/jinja_runtime.h"
#include "text/jinja_value.h"

namespace quern::jinja {

// The method `name` of a value of this kind, or nullptr. What would change a list or dict is
// absent, as in transformers' sandbox.
const Function* find_method(const Value& self, std::string_view name);

// str.strip and its halves, shared with the filter trim.
enum class Side { kBoth, kLeft, kRight };
Result<Value> strip(Runtime& runtime, const Str& text, const Value& characters, Side side);

// str.replace, shared with the filter; a negative `limit` means all.
Result<Value> replace(
    Runtime& runtime, const Str& text, const Str& from, const Str& to, int64_t limit);

// str.splitlines without the line breaks.
Result<std::vector<Value>> split_lines(Runtime& runtime, const Str& text);

// d.items() and its parts as lists.
Result<std::vector<Value>> dict_items(Runtime& runtime, const Dict& dict);

}  // namespace quern::jinja
