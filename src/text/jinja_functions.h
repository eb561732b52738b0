// The global functions of a template: range, dict, namespace, raise_exception, strftime_now,
// cycler, joiner.
#pragma once

#include <span>
#include <string_view>

#include "text/jinja_runtime.h"

namespace quern::jinja {

std::span<const Function> global_functions();

const Function* find_cycler_method(std::string_view name);

// joiner()(): empty at first, the separator from then on.
Value call_joiner(Runtime& runtime, Joiner& joiner);

}  // namespace quern::jinja
