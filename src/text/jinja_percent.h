// Python's two ways to format text: "..." % values and "...".format(values).
#pragma once

#include "text/jinja_runtime.h"

namespace quern::jinja {

// Conversions: d i u s r a x X o c f F e E g G %, with flags, width, precision and %(name)s.
// Errors: what Python refuses, and widths beyond kMaxFormatWidth.
Result<Value> percent_format(Runtime& runtime, const Str& format, const Value& values);

// str.format: {}, {0}, {name}, .attribute and [item] excepted, with !s !r and
// [[fill]align][sign][0][width][,][.precision][type].
Result<Value> brace_format(Runtime& runtime, const Str& format, const Call& call);

inline constexpr int64_t kMaxFormatWidth = 4096;

}  // namespace quern::jinja
