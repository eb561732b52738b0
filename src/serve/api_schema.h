// What a JSON value may be, written once: requests are checked against it and the OpenAPI document
// prints it, so that the two cannot differ.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "serve/api_error.h"
#include "text/chat_template.h"

namespace quern {

enum class SchemaKind : uint8_t {
  kAny,
  kNull,
  kBoolean,
  kInteger,
  kNumber,
  kString,
  kConstant,  // one of `values`
  kArray,
  kObject,
  kUnion,  // any of `variants`
};

enum class TextRule : uint8_t {
  kAny,
  kName,    // [a-zA-Z0-9_-]{1,128}
  kDigits,  // [0-9]{1,10}
};

enum class NumberRule : uint8_t { kClosed, kAboveMinimum };  // [minimum, or (minimum

enum class Presence : uint8_t { kOptional, kRequired };

struct SchemaMember;

// A subset of JSON Schema 2020-12 as plain data; the functions below build it.
struct Schema {
  SchemaKind kind = SchemaKind::kAny;
  std::string description;

  std::optional<double> minimum, maximum;  // of kInteger and kNumber
  NumberRule rule = NumberRule::kClosed;

  TextRule text = TextRule::kAny;     // of kString
  int64_t least = 0;                  // code points of kString, items of kArray
  int64_t most = INT64_MAX;           // as `least`; members of a kObject with `other`
  std::vector<OrderedJson> values;    // of kConstant
  std::vector<Schema> variants;       // of kUnion; the item of kArray
  std::vector<SchemaMember> members;  // of kObject
  std::vector<Schema> other;  // of kObject: what members not named may be; empty: there are none
  TextRule names = TextRule::kAny;  // of those members
};

// Optional members may be null, which is as if they were absent.
struct SchemaMember {
  std::string name;
  Schema schema;
  Presence presence = Presence::kOptional;
};

Schema any_schema();
Schema null_schema();
Schema boolean_schema();
Schema integer_schema(int64_t minimum, int64_t maximum);
Schema number_schema(double minimum, double maximum);
Schema positive_number_schema(double maximum);  // (0, maximum]
Schema string_schema(int64_t least = 0, int64_t most = INT64_MAX);
Schema name_schema();
Schema constant_schema(std::vector<OrderedJson> values);
Schema array_schema(Schema item, int64_t least = 0, int64_t most = INT64_MAX);
Schema object_schema(std::vector<SchemaMember> members);
Schema map_schema(Schema other, int64_t most = INT64_MAX);
Schema union_schema(std::vector<Schema> variants);

// A member that is known but can only be null; the message and the document give the reason.
Schema refused_schema(std::string reason);

// An object of any members.
Schema open_object_schema();

Schema described(Schema schema, std::string description);

// Whether `value` is what `schema` says. Errors: 400 whose param is the path of the first member at
// fault ("messages[0].role"), "" for the value itself; the message names path, value and what would
// be right.
ApiResult<Unit> check(const Schema& schema, const OrderedJson& value);

// The schema as JSON Schema 2020-12, which OpenAPI 3.1 uses.
OrderedJson to_json(const Schema& schema);

// What would be right, in words: "a number in [0, 2]", "\"auto\" or \"none\"".
std::string expectation(const Schema& schema);

}  // namespace quern
