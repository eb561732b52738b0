// Dates for strftime_now(), in English whatever the locale of the process.
#pragma once

#include <ctime>

#include "text/jinja_text.h"

namespace quern::jinja {

// Appends `time` by strftime's `format`. Time zones print as nothing, as for Python's naive times.
// Errors: a conversion that is not known (named).
Result<Unit> append_time(TextBuilder& out, const Str& format, const std::tm& time);

}  // namespace quern::jinja
