// The tests of a template: `value is name(arguments)`.
#pragma once

#include <string_view>

#include "text/jinja_runtime.h"

namespace quern::jinja {

// The test or nullptr. It yields a bool (the order tests: what the operator yields).
const Function* find_test(std::string_view name);

bool is_callable(const Value& value);

}  // namespace quern::jinja
