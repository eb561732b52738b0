// The filter tojson as transformers defines it: Python's json.dumps, without escaping for HTML.
#pragma once

#include "text/jinja_runtime.h"

namespace quern::jinja {

// Arguments: value, ensure_ascii=false, indent=none, separators=none, sort_keys=false. Marks
// survive. Errors: a value that JSON does not have, steps, nesting, memory.
Result<Value> filter_tojson(Runtime& runtime, const Call& call);

}  // namespace quern::jinja
