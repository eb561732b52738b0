// The table of str's methods, between the file that holds them and the one that looks them up.
#pragma once

#include <span>

#include "text/jinja_runtime.h"

namespace quern::jinja {

std::span<const Function> string_methods();

}  // namespace quern::jinja
