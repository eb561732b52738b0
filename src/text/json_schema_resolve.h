// Follows the references of a JSON schema and merges what holds together with them.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "base/result.h"

namespace quern {

inline constexpr int kMaxSchemaDepth = 64;  // of references, allOf and anyOf, one within another

// Borrows the whole schema.
class SchemaResolver {
 public:
  explicit SchemaResolver(const nlohmann::ordered_json& root) : root_(root) {}

  // What a $ref stands for. `path` names the place of the reference. Errors: kInvalidArgument for a
  // place that is not there or not in this schema.
  Result<const nlohmann::ordered_json*> resolve(const nlohmann::ordered_json& reference,
                                                const std::string& path) const;

  // The schema without $ref and allOf of its own. Errors: those of resolve() and merged().
  Result<nlohmann::ordered_json> flattened(const nlohmann::ordered_json& schema,
                                           const std::string& path) {
    return flattened(schema, path, 0);
  }

  // Both schemas as one. Errors: those of merge_schemas(); kInvalidArgument when there is too much
  // to merge.
  Result<nlohmann::ordered_json> merged(const nlohmann::ordered_json& a,
                                        const nlohmann::ordered_json& b,
                                        const std::string& path);

 private:
  Result<nlohmann::ordered_json> flattened(const nlohmann::ordered_json& schema,
                                           const std::string& path,
                                           int depth);

  const nlohmann::ordered_json& root_;
  int merges_ = 0;
};

}  // namespace quern
