#include "text/json_schema_keywords.h"

#include <algorithm>
#include <array>
#include <cmath>

#include <fmt/format.h>

namespace quern {
namespace {

using OrderedJson = nlohmann::ordered_json;

constexpr int64_t kBindingCount = 1'000'000;  // no answer is as long: counts above do not bind
constexpr size_t kMaxShownPath = 200;

constexpr std::array<std::string_view, 6> kTypes = {"object", "array",   "string",
                                                    "number", "boolean", "null"};
constexpr std::array<std::string_view, 24> kAssertions = {
    "type",    "enum",        "const",    "properties", "required",         "additionalProperties",
    "items",   "prefixItems", "minItems", "maxItems",   "minLength",        "maxLength",
    "pattern", "format",      "minimum",  "maximum",    "exclusiveMinimum", "exclusiveMaximum",
    "anyOf",   "oneOf",       "allOf",    "$ref",       "uniqueItems",      "minProperties"};

constexpr std::array<std::string_view, 17> kAnnotations = {
    "$schema",  "$id",         "$comment",         "$anchor",         "$defs",        "definitions",
    "title",    "description", "default",          "examples",        "example",      "deprecated",
    "readOnly", "writeOnly",   "contentMediaType", "contentEncoding", "discriminator"};

}  // namespace

Error schema_error(const std::string& path, std::string_view what) {
  std::string shown = path;
  if (shown.size() > kMaxShownPath) {
    size_t begin = shown.size() - kMaxShownPath;
    while (begin < shown.size() && (static_cast<unsigned char>(shown[begin]) & 0xC0) == 0x80)
      ++begin;  // whole code points
    shown = "..." + shown.substr(begin);
  }
  return {ErrorCode::kInvalidArgument, fmt::format("{}: {}", shown, what)};
}

bool is_schema_annotation(std::string_view keyword) {
  return keyword.starts_with("x-") ||
         std::find(kAnnotations.begin(), kAnnotations.end(), keyword) != kAnnotations.end();
}

bool has_any_keyword(const OrderedJson& schema, std::initializer_list<const char*> keywords) {
  return std::any_of(keywords.begin(), keywords.end(),
                     [&](const char* key) { return schema.contains(key); });
}

bool has_assertions(const OrderedJson& schema) {
  for (const auto& [key, value] : schema.items()) {
    if (!is_schema_annotation(key)) return true;
  }
  return false;
}

Result<Unit> check_schema_keywords(const OrderedJson& schema, const std::string& path) {
  for (const auto& [key, content] : schema.items()) {
    const bool harmless =
        (key == "uniqueItems" && content == false) || (key == "minProperties" && content == 0);
    if (is_schema_annotation(key) || harmless) continue;
    const bool known = std::find(kAssertions.begin(), kAssertions.end(), key) != kAssertions.end();
    if (!known || key == "uniqueItems" || key == "minProperties")
      return schema_error(path, fmt::format("keyword `{}` is not supported", key));
  }
  return Unit{};
}

std::vector<std::string> json_types() { return {kTypes.begin(), kTypes.end()}; }

std::string_view json_type_of(const OrderedJson& value) {
  if (value.is_object()) return "object";
  if (value.is_array()) return "array";
  if (value.is_string()) return "string";
  if (value.is_number()) return "number";
  return value.is_boolean() ? "boolean" : "null";
}

Result<std::vector<std::string>> schema_types(const OrderedJson& schema, const std::string& path) {
  std::vector<std::string> out;
  if (const auto type = schema.find("type"); type != schema.end()) {
    const OrderedJson list = type->is_array() ? *type : OrderedJson::array({*type});
    for (const OrderedJson& name : list) {
      const bool known =
          name == "integer" || std::find(kTypes.begin(), kTypes.end(), name) != kTypes.end();
      if (!known) {
        return schema_error(path,
                            "keyword `type` must name object, array, string, number, integer, "
                            "boolean or null, or a list of these");
      }
      out.push_back(name.get<std::string>());
    }
    return out;
  }
  const auto infer = [&](const char* type, std::initializer_list<const char*> keywords) {
    if (has_any_keyword(schema, keywords)) out.emplace_back(type);
  };
  infer("object", {"properties", "required", "additionalProperties"});
  infer("array", {"items", "prefixItems", "minItems", "maxItems"});
  infer("string", {"minLength", "maxLength", "pattern", "format"});
  infer("number", {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"});
  if (out.empty()) out.assign(kTypes.begin(), kTypes.end());
  return out;
}

std::vector<OrderedJson> schema_constants(const OrderedJson& schema) {
  std::vector<OrderedJson> out;
  const auto listed = schema.find("enum");
  const auto single = schema.find("const");
  if (listed != schema.end()) {
    for (const OrderedJson& value : *listed) {
      if (single == schema.end() || value == *single) out.push_back(value);
    }
  } else if (single != schema.end()) {
    out.push_back(*single);
  }
  return out;
}

Result<SchemaCounts> schema_counts(const OrderedJson& schema,
                                   const char* min_key,
                                   const char* max_key,
                                   const std::string& path) {
  SchemaCounts out;
  for (const char* key : {min_key, max_key}) {
    const auto found = schema.find(key);
    if (found == schema.end()) continue;
    const bool whole = found->is_number_integer() ||
                       (found->is_number_float() && std::floor(found->get<double>()) == *found);
    if (!whole || *found < 0)
      return schema_error(path, fmt::format("keyword `{}` must be an integer of at least 0", key));
    const bool binds = *found <= kBindingCount;
    if (key == max_key) out.max = binds ? found->get<int32_t>() : kUnbounded;
    if (key == min_key && !binds)
      return schema_error(path, fmt::format("keyword `{}` is above {}", key, kBindingCount));
    if (key == min_key) out.min = found->get<int32_t>();
  }
  return out;
}

}  // namespace quern
