// Makes one schema of several that hold together: allOf, and keywords beside $ref and anyOf.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "base/result.h"

namespace quern {

// The schema that both together are, in keywords that each hold alone; `path` names the place in
// errors. Errors: kInvalidArgument for what does not merge (anyOf on both sides, closed objects
// with different properties).
Result<nlohmann::ordered_json> merge_schemas(const nlohmann::ordered_json& a,
                                             const nlohmann::ordered_json& b,
                                             const std::string& path);

}  // namespace quern
