// The filters of a template: `value | name(arguments)`.
#pragma once

#include <string_view>

#include "text/jinja_runtime.h"

namespace quern::jinja {

// The filter or nullptr. In its Call the first argument is the value that is filtered.
const Function* find_filter(std::string_view name);

// The two tables behind it: filters that make or take text and numbers, and those that walk
// sequences.
std::span<const Function> text_filters();
std::span<const Function> sequence_filters();

}  // namespace quern::jinja
