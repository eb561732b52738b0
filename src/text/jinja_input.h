// Turns the caller's JSON into template values, every text of it marked as the caller's.
#pragma once

#include "text/jinja_runtime.h"

namespace quern::jinja {

// Borrows the texts of `json`, which outlives the rendering. `name` names it in errors. Errors:
// text that is not UTF-8, nesting, memory.
Result<Value> from_json(Runtime& runtime, const OrderedJson& json, std::string_view name);

}  // namespace quern::jinja
