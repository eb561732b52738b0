// How Python prints values: str() and repr().
#pragma once

#include <string>

#include "text/jinja_runtime.h"
#include "text/jinja_text.h"
#include "text/jinja_value.h"

namespace quern::jinja {

// The shortest digits that read back as `value`, as Python prints a float.
std::string float_repr(double value);

// Append str(value) and repr(value); marks survive. Errors: nesting and steps.
Result<Unit> append_str(Runtime& runtime, TextBuilder& out, const Value& value);
Result<Unit> append_repr(Runtime& runtime, TextBuilder& out, const Value& value);

// str(value) as a text value.
Result<Value> to_str(Runtime& runtime, const Value& value);

}  // namespace quern::jinja
