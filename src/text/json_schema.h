// JSON schemas (draft 2020-12) as expressions of a grammar. What the grammar says validates against
// the schema; what is not supported is refused by name, never ignored.
//
// Assertions: type (one or a list), enum, const, properties, required, additionalProperties, items,
// prefixItems, minItems, maxItems, minLength, maxLength, pattern, format, minimum, maximum,
// exclusiveMinimum, exclusiveMaximum, anyOf, oneOf, allOf, $ref within the document ($defs,
// definitions or any other place), true and false. Formats enforced: date, time, date-time, uuid,
// ipv4, email; others are annotations, as the specification has them, like title, description,
// default, examples and names that start with "x-".
//
// Where the schema leaves a choice the grammar takes the narrower one:
// - properties come in the order of the schema; without additionalProperties an object that names
//   properties has no others, a prefixItems no further items;
// - without a type the keywords present name it (properties: an object), else any value;
// - strings under length, pattern or as names of additional properties use escapes only where JSON
//   demands them; white space and digits are bounded as grammar_json.h says;
// - bounds of a number rule out an exponent.
// oneOf needs branches that no value satisfies together: different types, or a property that each
// requires with a constant of its own. allOf and keywords beside $ref and anyOf are merged.
#pragma once

#include <string_view>

#include <nlohmann/json.hpp>

#include "base/result.h"
#include "text/grammar_expression.h"
#include "text/grammar_json.h"

namespace quern {

// The values that the schema allows. Rules are added to `out`, which has rule 0 already; `where`
// names the schema in errors ("schema"). Errors: kInvalidArgument that names the place.
Result<ExpressionId> schema_expression(const nlohmann::ordered_json& schema,
                                       std::string_view where,
                                       JsonExpressions& json,
                                       Expressions& out);

}  // namespace quern
