// How many files and connections this process may have open.
#pragma once

#include <cstdint>

#include "base/result.h"

namespace quern {

inline constexpr int64_t kSpareFiles = 64;  // descriptors beside connections

// Raises the soft limit so that `connections` fit beside kSpareFiles, as far as the hard limit
// allows. Returns how many connections fit.
int64_t raise_file_limit(int64_t connections);

// The same where all of them are needed. Errors: kInvalidArgument that names `flag`, which asked
// for them.
Result<Unit> require_file_limit(int64_t connections, const char* flag);

}  // namespace quern
