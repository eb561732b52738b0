// What the keywords of one JSON schema say, read and checked.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/result.h"
#include "text/grammar_expression.h"

namespace quern {

// kInvalidArgument that names the place, its end when it is long.
Error schema_error(const std::string& path, std::string_view what);

// Whether the keyword only describes and never refuses a value.
bool is_schema_annotation(std::string_view keyword);

bool has_any_keyword(const nlohmann::ordered_json& schema,
                     std::initializer_list<const char*> keywords);

// Whether a keyword may refuse a value.
bool has_assertions(const nlohmann::ordered_json& schema);

// Errors: kInvalidArgument for a keyword that is not supported. Requires an object.
Result<Unit> check_schema_keywords(const nlohmann::ordered_json& schema, const std::string& path);

// The types that there are, but for integers, which are numbers.
std::vector<std::string> json_types();

// "object", ... of a value; "number" for an integer.
std::string_view json_type_of(const nlohmann::ordered_json& value);

// What `type` names, else what the keywords present are about, else every type.
Result<std::vector<std::string>> schema_types(const nlohmann::ordered_json& schema,
                                              const std::string& path);

// What `enum` and `const` leave together.
std::vector<nlohmann::ordered_json> schema_constants(const nlohmann::ordered_json& schema);

struct SchemaCounts {
  int32_t min = 0;
  int32_t max = kUnbounded;
};

// Two keywords that count something, e.g. minItems and maxItems.
Result<SchemaCounts> schema_counts(const nlohmann::ordered_json& schema,
                                   const char* min_key,
                                   const char* max_key,
                                   const std::string& path);

}  // namespace quern
