// Whether the branches of a oneOf exclude each other, so that one of them is what any of them is.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/result.h"

namespace quern {

// Branches as SchemaResolver::flattened() gives them. Errors: kInvalidArgument that names two that
// a value may satisfy together, as far as types and the constants of required properties tell.
Result<Unit> check_disjoint(const std::vector<nlohmann::ordered_json>& branches,
                            const std::string& path);

}  // namespace quern
