#include "text/json_schema_disjoint.h"

#include <algorithm>

#include <fmt/format.h>

#include "text/json_schema_keywords.h"

namespace quern {
namespace {

using OrderedJson = nlohmann::ordered_json;

bool disjoint_constants(const OrderedJson& a, const OrderedJson& b) {
  if (!a.is_object() || !b.is_object()) return false;
  if (!has_any_keyword(a, {"enum", "const"}) || !has_any_keyword(b, {"enum", "const"}))
    return false;
  const std::vector<OrderedJson> others = schema_constants(b);
  for (const OrderedJson& value : schema_constants(a)) {
    if (std::find(others.begin(), others.end(), value) != others.end()) return false;
  }
  return true;
}

Result<bool> disjoint(const OrderedJson& a, const OrderedJson& b, const std::string& path) {
  if (!a.is_object() || !b.is_object()) return a == false || b == false;
  if (disjoint_constants(a, b)) return true;
  const auto kinds = [&](const OrderedJson& schema) -> Result<std::vector<std::string>> {
    if (has_any_keyword(schema, {"anyOf", "oneOf", "not"}) && !schema.contains("type"))
      return json_types();
    if (!has_any_keyword(schema, {"enum", "const"})) return schema_types(schema, path);
    std::vector<std::string> out;
    for (const OrderedJson& value : schema_constants(schema)) out.emplace_back(json_type_of(value));
    return out;
  };
  const auto same = [](const std::string& x, const std::string& y) {
    return x == y || (x == "integer" && y == "number") || (x == "number" && y == "integer");
  };
  bool shared = false;
  const std::vector<std::string> of_b = QUERN_TRY(kinds(b));
  for (const std::string& type : QUERN_TRY(kinds(a))) {
    shared = shared || std::any_of(of_b.begin(), of_b.end(),
                                   [&](const std::string& other) { return same(type, other); });
  }
  if (!shared) return true;
  const auto required = [](const OrderedJson& schema, const std::string& name) {
    const auto list = schema.find("required");
    return list != schema.end() && std::find(list->begin(), list->end(), name) != list->end();
  };
  const auto objects = [](const OrderedJson& schema) {
    return schema.value("type", OrderedJson()) == "object" && schema.contains("properties") &&
           schema.at("properties").is_object();
  };
  if (!objects(a) || !objects(b)) return false;
  for (const auto& [name, schema] : a.at("properties").items()) {
    if (b.at("properties").contains(name) && required(a, name) && required(b, name) &&
        disjoint_constants(schema, b.at("properties").at(name)))
      return true;
  }
  return false;
}

}  // namespace

Result<Unit> check_disjoint(const std::vector<OrderedJson>& branches, const std::string& path) {
  for (size_t i = 0; i < branches.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (!QUERN_TRY(disjoint(branches[i], branches[j], path))) {
        return schema_error(path,
                            fmt::format("keyword `oneOf`: a value may satisfy both branch {} and "
                                        "branch {}; give them different types or a required "
                                        "property with different constants, or use `anyOf`",
                                        j, i));
      }
    }
  }
  return Unit{};
}

}  // namespace quern
