// Strings and numbers of a JSON schema as expressions of a grammar.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include <nlohmann/json.hpp>

#include "base/result.h"
#include "text/grammar_json.h"

namespace quern {

// Errors of all: kInvalidArgument for a keyword with a wrong value, naming the place.
class SchemaScalars {
 public:
  SchemaScalars(JsonExpressions& json, Expressions& out) : json_(json), out_(out) {}

  // Under minLength, maxLength, pattern and format.
  Result<ExpressionId> string(const nlohmann::ordered_json& schema, const std::string& path);

  // Under minimum, maximum, exclusiveMinimum and exclusiveMaximum.
  Result<ExpressionId> integer(const nlohmann::ordered_json& schema, const std::string& path);
  Result<ExpressionId> number(const nlohmann::ordered_json& schema, const std::string& path);

 private:
  Result<ExpressionId> string_content(const nlohmann::ordered_json& schema,
                                      const std::string& path);
  Result<ExpressionId> pattern(std::string_view text, const std::string& path);

  JsonExpressions& json_;
  Expressions& out_;
  std::map<std::string, int32_t> strings_;  // by constraints: their rule, or kAnyText
};

}  // namespace quern
