#include "text/json_schema_merge.h"

#include <algorithm>

#include <fmt/format.h>

#include "text/json_schema_keywords.h"

namespace quern {
namespace {

using OrderedJson = nlohmann::ordered_json;

Error conflict(const std::string& path, std::string_view keyword, std::string_view why) {
  return {ErrorCode::kInvalidArgument,
          fmt::format("{}: keyword `{}` given twice: {}", path, keyword, why)};
}

OrderedJson as_list(const OrderedJson& value) {
  return value.is_array() ? value : OrderedJson::array({value});
}

bool holds(const OrderedJson& list, const OrderedJson& value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

OrderedJson common(const OrderedJson& a, const OrderedJson& b) {
  OrderedJson out = OrderedJson::array();
  for (const OrderedJson& value : a) {
    if (holds(b, value)) out.push_back(value);
  }
  return out;
}

// Types of both; an integer is a number.
OrderedJson common_types(const OrderedJson& a, const OrderedJson& b) {
  OrderedJson out = common(a, b);
  const auto narrow = [&](const OrderedJson& with, const OrderedJson& other) {
    if (holds(with, "integer") && holds(other, "number") && !holds(out, "integer") &&
        !holds(out, "number"))
      out.push_back("integer");
  };
  narrow(a, b);
  narrow(b, a);
  return out;
}

OrderedJson both_of(const OrderedJson& a, const OrderedJson& b) {
  if (a == b) return a;
  return OrderedJson{{"allOf", OrderedJson::array({a, b})}};
}

// A property that only one side names must be allowed by the other's additionalProperties.
Result<Unit> check_closed(const OrderedJson& closed,
                          const OrderedJson& other,
                          const std::string& path) {
  const auto additional = closed.find("additionalProperties");
  if (additional == closed.end() || (additional->is_boolean() && additional->get<bool>()))
    return Unit{};
  const auto named = other.find("properties");
  if (named == other.end()) return Unit{};
  for (const auto& [name, schema] : named->items()) {
    if (!closed.contains("properties") || !closed.at("properties").contains(name)) {
      return conflict(path, "additionalProperties",
                      "a part of allOf that closes its object must name every property");
    }
  }
  return Unit{};
}

Result<Unit> merge_keyword(OrderedJson& out,
                           const std::string& key,
                           const OrderedJson& b,
                           const std::string& path) {
  OrderedJson& a = out[key];
  const auto numbers = a.is_number() && b.is_number();
  if (a == b) return Unit{};
  if (key == "type") {
    a = common_types(as_list(a), as_list(b));
  } else if (key == "enum" && a.is_array() && b.is_array()) {
    a = common(a, b);
  } else if (key == "required" && a.is_array() && b.is_array()) {
    for (const OrderedJson& name : b) {
      if (!holds(a, name)) a.push_back(name);
    }
  } else if (key == "properties" && a.is_object() && b.is_object()) {
    for (const auto& [name, schema] : b.items())
      a[name] = a.contains(name) ? both_of(a[name], schema) : schema;
  } else if (key == "items" || key == "additionalProperties") {
    a = both_of(a, b);
  } else if (numbers && (key.starts_with("min") || key == "exclusiveMinimum")) {
    a = std::max(a, b);
  } else if (numbers && (key.starts_with("max") || key == "exclusiveMaximum")) {
    a = std::min(a, b);
  } else if (key == "pattern") {
    a = as_list(a);
    for (const OrderedJson& pattern : as_list(b)) a.push_back(pattern);
  } else {
    return conflict(path, key, "these do not merge");
  }
  return Unit{};
}

}  // namespace

Result<OrderedJson> merge_schemas(const OrderedJson& a,
                                  const OrderedJson& b,
                                  const std::string& path) {
  if (a.is_boolean()) return a.get<bool>() ? b : a;
  if (b.is_boolean()) return b.get<bool>() ? a : b;
  if (!a.is_object() || !b.is_object()) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: expected an object or a boolean", path)};
  }
  QUERN_TRY(check_closed(a, b, path));
  QUERN_TRY(check_closed(b, a, path));
  OrderedJson out = a;
  for (const auto& [key, value] : b.items()) {
    if (is_schema_annotation(key)) continue;
    if (out.contains(key)) {
      QUERN_TRY(merge_keyword(out, key, value, path));
    } else {
      out[key] = value;
    }
  }
  return out;
}

}  // namespace quern
