#include "serve/api_schema.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "serve/api_json.h"

namespace quern {
namespace {

constexpr int64_t kMaxNameBytes = 128;
constexpr int64_t kMaxDigits = 10;

struct Violation {
  std::string path;  // built while returning: ".name", "[3]"
  std::string message;
  std::string code;
};

using Outcome = std::optional<Violation>;

bool is_name_byte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '-';
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool follows(TextRule rule, std::string_view text) {
  const auto bytes = static_cast<int64_t>(text.size());
  switch (rule) {
    case TextRule::kAny:
      return true;
    case TextRule::kName:
      return bytes >= 1 && bytes <= kMaxNameBytes &&
             std::all_of(text.begin(), text.end(), is_name_byte);
    case TextRule::kDigits:
      return bytes >= 1 && bytes <= kMaxDigits && std::all_of(text.begin(), text.end(), is_digit);
  }
  return false;
}

std::string pattern(TextRule rule) {
  return rule == TextRule::kName ? fmt::format("^[a-zA-Z0-9_-]{{1,{}}}$", kMaxNameBytes)
                                 : fmt::format("^[0-9]{{1,{}}}$", kMaxDigits);
}

int64_t code_points(std::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; });
}

bool is_integer(const OrderedJson& value) {
  if (value.is_number_unsigned()) return value.get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX);
  if (value.is_number_integer()) return true;
  if (!value.is_number_float()) return false;
  const auto real = value.get<double>();
  return std::trunc(real) == real && std::fabs(real) <= 0x1p53;
}

bool in_range(const Schema& schema, double value) {
  if (schema.minimum) {
    const bool open = schema.rule == NumberRule::kAboveMinimum;
    if (open ? value <= *schema.minimum : value < *schema.minimum) return false;
  }
  return !schema.maximum || value <= *schema.maximum;
}

// The bounds of integers beyond 2^53 are those of int64_t itself, which is_integer() holds.
bool integer_in_range(const Schema& schema, const OrderedJson& value) {
  return is_integer(value) && in_range(schema, static_cast<double>(as_integer(value)));
}

// A bound of integers, which are those of int64_t.
int64_t exact(double bound) { return bound >= 0x1p63 ? INT64_MAX : static_cast<int64_t>(bound); }

std::string range(const Schema& schema) {
  if (!schema.minimum || !schema.maximum) return {};
  if (schema.kind == SchemaKind::kInteger) {
    return fmt::format(" in [{}, {}]", exact(*schema.minimum), exact(*schema.maximum));
  }
  const char* bracket = schema.rule == NumberRule::kAboveMinimum ? "(" : "[";
  return fmt::format(" in {}{}, {}]", bracket, *schema.minimum, *schema.maximum);
}

Violation wrong(const Schema& schema, const OrderedJson& value) {
  return {{}, fmt::format("is {}; it must be {}", shown(value), expectation(schema)), {}};
}

Outcome violation(const Schema& schema, const OrderedJson& value);

Outcome within(std::string step, Outcome inner) {
  if (inner) inner->path = std::move(step) + inner->path;
  return inner;
}

// A key as part of a path. Keys of any length come from outside: a long one is cut.
std::string step(const std::string& key) {
  constexpr size_t kMaxShownKey = 64;
  if (key.size() <= kMaxShownKey) return "." + key;
  size_t end = kMaxShownKey;
  while (end > 0 && (static_cast<unsigned char>(key[end]) & 0xc0) == 0x80) --end;
  return fmt::format(".{}...", key.substr(0, end));
}

Outcome array_violation(const Schema& schema, const OrderedJson& value) {
  if (!value.is_array()) return wrong(schema, value);
  const auto count = static_cast<int64_t>(value.size());
  if (count < schema.least || count > schema.most) {
    return Violation{
        {}, fmt::format("has {} items; it must be {}", count, expectation(schema)), {}};
  }
  for (size_t i = 0; i < value.size(); ++i) {
    if (Outcome inner = violation(schema.variants.front(), value[i])) {
      return within(fmt::format("[{}]", i), std::move(inner));
    }
  }
  return std::nullopt;
}

Outcome unnamed_violation(const Schema& schema, const std::string& key, const OrderedJson& value) {
  if (schema.other.empty()) {
    return Violation{step(key), "is not a field that this server knows", "unknown_parameter"};
  }
  if (!follows(schema.names, key)) {
    return Violation{
        step(key), fmt::format("is a key that does not match {}", pattern(schema.names)), {}};
  }
  return within(step(key), violation(schema.other.front(), value));
}

// A value of the wrong "type" is named before what it lacks.
Outcome constant_violation(const Schema& schema, const OrderedJson& value) {
  for (const SchemaMember& member : schema.members) {
    if (member.schema.kind != SchemaKind::kConstant) continue;
    const auto found = value.find(member.name);
    if (found == value.end() || found->is_null()) continue;
    if (Outcome inner = violation(member.schema, *found)) {
      return within(step(member.name), std::move(inner));
    }
  }
  return std::nullopt;
}

Outcome object_violation(const Schema& schema, const OrderedJson& value) {
  if (!value.is_object()) return wrong(schema, value);
  if (Outcome inner = constant_violation(schema, value)) return inner;
  for (const SchemaMember& member : schema.members) {
    if (member.presence == Presence::kRequired && !value.contains(member.name)) {
      return Violation{step(member.name),
                       fmt::format("is missing; it must be {}", expectation(member.schema)),
                       "missing_required_parameter"};
    }
  }
  if (static_cast<int64_t>(value.size()) > schema.most) {
    return Violation{
        {}, fmt::format("has {} members; at most {} are allowed", value.size(), schema.most), {}};
  }
  for (const auto& entry : value.get_ref<const OrderedJson::object_t&>()) {
    const auto member = std::find_if(schema.members.begin(), schema.members.end(),
                                     [&](const SchemaMember& m) { return m.name == entry.first; });
    if (member == schema.members.end()) {
      if (Outcome inner = unnamed_violation(schema, entry.first, entry.second)) return inner;
      continue;
    }
    if (entry.second.is_null() && member->presence == Presence::kOptional) continue;
    if (Outcome inner = within(step(entry.first), violation(member->schema, entry.second))) {
      return inner;
    }
  }
  return std::nullopt;
}

bool has_type(const Schema& schema, const OrderedJson& value) {
  switch (schema.kind) {
    case SchemaKind::kString:
      return value.is_string();
    case SchemaKind::kInteger:
    case SchemaKind::kNumber:
      return value.is_number();
    case SchemaKind::kArray:
      return value.is_array();
    case SchemaKind::kObject:
      return value.is_object();
    case SchemaKind::kUnion:
      return std::any_of(schema.variants.begin(), schema.variants.end(),
                         [&](const Schema& variant) { return has_type(variant, value); });
    default:
      return false;
  }
}

// Whether the value is meant as this variant: the same JSON type, that of an array's first item
// included, and the constants ("type", "role") that tell objects apart.
bool resembles(const Schema& variant, const OrderedJson& value) {
  if (!has_type(variant, value)) return false;
  if (variant.kind == SchemaKind::kArray) {
    return value.empty() || has_type(variant.variants.front(), value.front());
  }
  return std::all_of(variant.members.begin(), variant.members.end(),
                     [&](const SchemaMember& member) {
                       if (member.schema.kind != SchemaKind::kConstant) return true;
                       const auto found = value.find(member.name);
                       if (found == value.end()) return member.presence == Presence::kOptional;
                       return !violation(member.schema, *found).has_value();
                     });
}

bool has_required(const Schema& variant, const OrderedJson& value) {
  return !value.is_object() ||
         std::all_of(variant.members.begin(), variant.members.end(), [&](const SchemaMember& m) {
           return m.presence == Presence::kOptional || value.contains(m.name);
         });
}

// Of a value that is none of the variants: what is wrong with it as the one it is most like.
Outcome union_violation(const Schema& schema, const OrderedJson& value) {
  Outcome closest;
  bool complete = false;
  for (const Schema& variant : schema.variants) {
    Outcome found = violation(variant, value);
    if (!found) return std::nullopt;
    if (complete || !resembles(variant, value)) continue;
    complete = has_required(variant, value);
    if (complete || !closest) closest = std::move(found);
  }
  return closest ? std::move(closest) : wrong(schema, value);
}

Outcome string_violation(const Schema& schema, const OrderedJson& value) {
  if (!value.is_string()) return wrong(schema, value);
  const auto& text = value.get_ref<const std::string&>();
  const int64_t length = code_points(text);
  if (length < schema.least || length > schema.most || !follows(schema.text, text)) {
    return wrong(schema, value);
  }
  return std::nullopt;
}

Outcome violation(const Schema& schema, const OrderedJson& value) {
  const auto unless = [&](bool right) { return right ? Outcome() : Outcome(wrong(schema, value)); };
  switch (schema.kind) {
    case SchemaKind::kAny:
      return std::nullopt;
    case SchemaKind::kNull:
      return unless(value.is_null());
    case SchemaKind::kBoolean:
      return unless(value.is_boolean());
    case SchemaKind::kInteger:
      return unless(integer_in_range(schema, value));
    case SchemaKind::kNumber:
      return unless(value.is_number() && in_range(schema, value.get<double>()));
    case SchemaKind::kString:
      return string_violation(schema, value);
    case SchemaKind::kConstant:
      return unless(std::find(schema.values.begin(), schema.values.end(), value) !=
                    schema.values.end());
    case SchemaKind::kArray:
      return array_violation(schema, value);
    case SchemaKind::kObject:
      return object_violation(schema, value);
    case SchemaKind::kUnion:
      return union_violation(schema, value);
  }
  return std::nullopt;
}

Schema of_kind(SchemaKind kind) {
  Schema schema;
  schema.kind = kind;
  return schema;
}

void write_range(const Schema& schema, OrderedJson& json) {
  const auto write = [&](const char* key, const std::optional<double>& bound) {
    if (!bound) return;
    if (schema.kind == SchemaKind::kInteger) {
      json[key] = exact(*bound);
    } else {
      json[key] = *bound;
    }
  };
  write(schema.rule == NumberRule::kAboveMinimum ? "exclusiveMinimum" : "minimum", schema.minimum);
  write("maximum", schema.maximum);
}

void write_lengths(const Schema& schema, const char* least, const char* most, OrderedJson& json) {
  if (schema.least > 0) json[least] = schema.least;
  if (schema.most < INT64_MAX) json[most] = schema.most;
}

OrderedJson nullable(const Schema& schema) {
  OrderedJson json = to_json(schema);
  if (schema.kind == SchemaKind::kAny || schema.kind == SchemaKind::kNull) return json;
  if (schema.kind == SchemaKind::kConstant) {
    const auto& values = schema.values;
    if (std::find(values.begin(), values.end(), nullptr) == values.end()) {
      json["enum"].push_back(nullptr);
    }
    return json;
  }
  if (schema.kind == SchemaKind::kUnion) {
    json["anyOf"].push_back({{"type", "null"}});
    return json;
  }
  json["type"] = OrderedJson::array({json["type"], "null"});
  return json;
}

void write_object(const Schema& schema, OrderedJson& json) {
  json["type"] = "object";
  OrderedJson required = OrderedJson::array();
  OrderedJson properties = OrderedJson::object();
  for (const SchemaMember& member : schema.members) {
    const bool needed = member.presence == Presence::kRequired;
    if (needed) required.push_back(member.name);
    properties[member.name] = needed ? to_json(member.schema) : nullable(member.schema);
  }
  if (!properties.empty()) json["properties"] = std::move(properties);
  if (!required.empty()) json["required"] = std::move(required);
  if (schema.other.empty()) {
    json["additionalProperties"] = false;
    return;
  }
  if (schema.names != TextRule::kAny) json["propertyNames"]["pattern"] = pattern(schema.names);
  if (schema.most < INT64_MAX) json["maxProperties"] = schema.most;
  json["additionalProperties"] = to_json(schema.other.front());
}

std::string alternatives(const std::vector<std::string>& words) {
  if (words.size() == 1) return words.front();
  const auto last = words.end() - 1;
  return fmt::format("{} or {}", fmt::join(words.begin(), last, ", "), *last);
}

std::string object_expectation(const Schema& schema) {
  std::vector<std::string> constants;
  for (const SchemaMember& member : schema.members) {
    if (member.schema.kind == SchemaKind::kConstant && member.presence == Presence::kRequired) {
      constants.push_back(fmt::format("{} {}", member.name, expectation(member.schema)));
    }
  }
  if (constants.empty()) return "an object";
  return fmt::format("an object with {}", fmt::join(constants, ", "));
}

std::string counted(const Schema& schema, const char* one, const char* unit) {
  if (schema.most == INT64_MAX) {
    return schema.least == 0 ? one : fmt::format("{} of at least {} {}", one, schema.least, unit);
  }
  return fmt::format("{} of {} to {} {}", one, schema.least, schema.most, unit);
}

}  // namespace

Schema any_schema() { return of_kind(SchemaKind::kAny); }

Schema null_schema() { return of_kind(SchemaKind::kNull); }

Schema boolean_schema() { return of_kind(SchemaKind::kBoolean); }

Schema integer_schema(int64_t minimum, int64_t maximum) {
  Schema schema = of_kind(SchemaKind::kInteger);
  schema.minimum = static_cast<double>(minimum);
  schema.maximum = static_cast<double>(maximum);
  return schema;
}

Schema number_schema(double minimum, double maximum) {
  Schema schema = of_kind(SchemaKind::kNumber);
  schema.minimum = minimum;
  schema.maximum = maximum;
  return schema;
}

Schema positive_number_schema(double maximum) {
  Schema schema = number_schema(0, maximum);
  schema.rule = NumberRule::kAboveMinimum;
  return schema;
}

Schema string_schema(int64_t least, int64_t most) {
  Schema schema = of_kind(SchemaKind::kString);
  schema.least = least;
  schema.most = most;
  return schema;
}

Schema name_schema() {
  Schema schema = of_kind(SchemaKind::kString);
  schema.text = TextRule::kName;
  return schema;
}

Schema constant_schema(std::vector<OrderedJson> values) {
  Schema schema = of_kind(SchemaKind::kConstant);
  schema.values = std::move(values);
  return schema;
}

Schema array_schema(Schema item, int64_t least, int64_t most) {
  Schema schema = of_kind(SchemaKind::kArray);
  schema.variants.push_back(std::move(item));
  schema.least = least;
  schema.most = most;
  return schema;
}

Schema object_schema(std::vector<SchemaMember> members) {
  Schema schema = of_kind(SchemaKind::kObject);
  schema.members = std::move(members);
  return schema;
}

Schema map_schema(Schema other, int64_t most) {
  Schema schema = of_kind(SchemaKind::kObject);
  schema.other.push_back(std::move(other));
  schema.most = most;
  return schema;
}

Schema union_schema(std::vector<Schema> variants) {
  Schema schema = of_kind(SchemaKind::kUnion);
  schema.variants = std::move(variants);
  return schema;
}

Schema refused_schema(std::string reason) { return described(null_schema(), std::move(reason)); }

Schema open_object_schema() { return map_schema(any_schema()); }

Schema described(Schema schema, std::string description) {
  schema.description = std::move(description);
  return schema;
}

ApiResult<Unit> check(const Schema& schema, const OrderedJson& value) {
  Outcome found = violation(schema, value);
  if (!found) return Unit{};
  std::string path = std::move(found->path);
  if (!path.empty() && path.front() == '.') path.erase(0, 1);
  std::string message = fmt::format("{} {}", path.empty() ? "the value" : path, found->message);
  return invalid_request(std::move(path), std::move(message), std::move(found->code));
}

OrderedJson to_json(const Schema& schema) {
  static constexpr const char* kTypes[] = {"", "null", "boolean", "integer", "number", "string"};
  OrderedJson json = OrderedJson::object();
  if (!schema.description.empty()) json["description"] = schema.description;
  switch (schema.kind) {
    case SchemaKind::kAny:
      break;
    case SchemaKind::kConstant:
      json["enum"] = schema.values;
      break;
    case SchemaKind::kArray:
      json["type"] = "array";
      json["items"] = to_json(schema.variants.front());
      write_lengths(schema, "minItems", "maxItems", json);
      break;
    case SchemaKind::kObject:
      write_object(schema, json);
      break;
    case SchemaKind::kUnion:
      json["anyOf"] = OrderedJson::array();
      for (const Schema& variant : schema.variants) json["anyOf"].push_back(to_json(variant));
      break;
    default:
      json["type"] = kTypes[static_cast<size_t>(schema.kind)];
      write_range(schema, json);
      if (schema.kind != SchemaKind::kString) break;
      write_lengths(schema, "minLength", "maxLength", json);
      if (schema.text != TextRule::kAny) json["pattern"] = pattern(schema.text);
  }
  return json;
}

std::string expectation(const Schema& schema) {
  std::vector<std::string> words;
  switch (schema.kind) {
    case SchemaKind::kAny:
      return "any value";
    case SchemaKind::kNull:
      return schema.description.empty() ? "null" : "left out: " + schema.description;
    case SchemaKind::kBoolean:
      return "true or false";
    case SchemaKind::kInteger:
      return "an integer" + range(schema);
    case SchemaKind::kNumber:
      return "a number" + range(schema);
    case SchemaKind::kString:
      if (schema.text != TextRule::kAny) {
        return fmt::format("a string that matches {}", pattern(schema.text));
      }
      return counted(schema, "a string", "characters");
    case SchemaKind::kArray:
      return counted(schema, "an array", "items");
    case SchemaKind::kObject:
      return object_expectation(schema);
    case SchemaKind::kConstant:
      for (const OrderedJson& value : schema.values) words.push_back(dump(value));
      return alternatives(words);
    case SchemaKind::kUnion:
      for (const Schema& variant : schema.variants) words.push_back(expectation(variant));
      return alternatives(words);
  }
  return {};
}

}  // namespace quern
