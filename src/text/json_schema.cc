#include "text/json_schema.h"

#include <algorithm>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "base/result.h"
#include "text/json_schema_disjoint.h"
#include "text/json_schema_keywords.h"
#include "text/json_schema_resolve.h"
#include "text/json_schema_scalar.h"

namespace quern {
namespace {

using OrderedJson = nlohmann::ordered_json;

constexpr int32_t kInlineRepeats = 8;  // arrays that may be longer keep their items in a rule

class SchemaCompiler {
 public:
  SchemaCompiler(const OrderedJson& root,
                 std::string_view where,
                 JsonExpressions& json,
                 Expressions& out)
      : root_(root), where_(where), json_(json), out_(out), resolver_(root), scalars_(json, out) {}

  Result<ExpressionId> run();

 private:
  enum class Part { kValue, kObject, kArray };

  struct Pending {
    RuleId rule;
    const OrderedJson* schema;
    std::string path;
    Part part;
  };

  const OrderedJson* keep(OrderedJson schema);
  RuleId rule_of(const OrderedJson* schema, const std::string& path, Part part);
  Result<ExpressionId> value(const OrderedJson& schema, const std::string& path, int depth);
  Result<ExpressionId> reference(const OrderedJson& schema, const std::string& path, int depth);
  Result<ExpressionId> alternatives(const OrderedJson& schema,
                                    const std::string& keyword,
                                    const std::string& path,
                                    int depth);
  Result<ExpressionId> enumeration(const OrderedJson& schema, const std::string& path);
  Result<ExpressionId> typed(const std::string& type,
                             const OrderedJson& schema,
                             const std::string& path);
  Result<ExpressionId> object(const OrderedJson& schema, const std::string& path);
  Result<ExpressionId> extra_member(const OrderedJson& schema, const std::string& path);
  Result<ExpressionId> array(const OrderedJson& schema, const std::string& path);
  Result<ExpressionId> item(const OrderedJson& schema,
                            const std::string& path,
                            const SchemaCounts& times);

  const OrderedJson& root_;
  std::string where_;
  JsonExpressions& json_;
  Expressions& out_;
  SchemaResolver resolver_;
  SchemaScalars scalars_;
  std::deque<OrderedJson> kept_;  // schemas that merging made; their addresses stay
  std::map<std::pair<const OrderedJson*, Part>, RuleId> rules_;
  std::deque<Pending> pending_;
};

const OrderedJson* SchemaCompiler::keep(OrderedJson schema) {
  kept_.push_back(std::move(schema));
  return &kept_.back();
}

RuleId SchemaCompiler::rule_of(const OrderedJson* schema, const std::string& path, Part part) {
  const auto [found, added] = rules_.emplace(std::pair(schema, part), 0);
  if (added) {
    found->second = out_.add_rule(path);
    pending_.push_back({found->second, schema, path, part});
  }
  return found->second;
}

Result<ExpressionId> SchemaCompiler::run() {
  const ExpressionId whole = QUERN_TRY(value(root_, where_, 0));
  while (!pending_.empty() && !out_.over_limit()) {
    const Pending next = std::move(pending_.front());
    pending_.pop_front();
    ExpressionId body = out_.nothing();
    switch (next.part) {
      case Part::kValue:
        body = QUERN_TRY(value(*next.schema, next.path, 0));
        break;
      case Part::kObject:
        body = QUERN_TRY(object(*next.schema, next.path));
        break;
      case Part::kArray:
        body = QUERN_TRY(array(*next.schema, next.path));
        break;
    }
    out_.set_rule(next.rule, body);
  }
  return whole;
}

Result<ExpressionId> SchemaCompiler::reference(const OrderedJson& schema,
                                               const std::string& path,
                                               int depth) {
  const OrderedJson* target = QUERN_TRY(resolver_.resolve(schema.at("$ref"), path));
  const bool scalar =
      target->is_object() && (has_any_keyword(*target, {"enum", "const"}) ||
                              (target->contains("type") && target->at("type").is_string() &&
                               target->at("type") != "object" && target->at("type") != "array"));
  if (scalar) return value(*target, path, depth + 1);
  return out_.call(rule_of(target, path, Part::kValue));
}

Result<ExpressionId> SchemaCompiler::value(const OrderedJson& schema,
                                           const std::string& path,
                                           int depth) {
  if (depth > kMaxSchemaDepth) return schema_error(path, "nested too deeply");
  if (schema.is_boolean()) return schema.get<bool>() ? json_.value() : out_.nothing();
  if (!schema.is_object()) return schema_error(path, "a schema must be an object or a boolean");
  QUERN_TRY(check_schema_keywords(schema, path));
  if (schema.contains("$ref")) {
    OrderedJson rest = schema;
    rest.erase("$ref");
    if (!has_assertions(rest)) return reference(schema, path, depth);
  }
  if (has_any_keyword(schema, {"$ref", "allOf"}))
    return value(*keep(QUERN_TRY(resolver_.flattened(schema, path))), path, depth + 1);
  for (const char* keyword : {"anyOf", "oneOf"}) {
    if (schema.contains(keyword)) return alternatives(schema, keyword, path, depth);
  }
  if (has_any_keyword(schema, {"enum", "const"})) return enumeration(schema, path);
  if (!has_assertions(schema)) return json_.value();
  std::vector<ExpressionId> branches;
  for (const std::string& type : QUERN_TRY(schema_types(schema, path)))
    branches.push_back(QUERN_TRY(typed(type, schema, path)));
  return out_.choice(std::move(branches));
}

Result<ExpressionId> SchemaCompiler::alternatives(const OrderedJson& schema,
                                                  const std::string& keyword,
                                                  const std::string& path,
                                                  int depth) {
  const OrderedJson& branches = schema.at(keyword);
  if (!branches.is_array() || branches.empty()) {
    return schema_error(path,
                        fmt::format("keyword `{}` must be a list of schemas, not empty", keyword));
  }
  OrderedJson rest = schema;
  rest.erase(keyword);
  const bool alone = !has_assertions(rest);
  if (keyword == "oneOf") {
    std::vector<OrderedJson> flat;
    for (const OrderedJson& branch : branches) {
      flat.push_back(QUERN_TRY(resolver_.flattened(branch, path)));
    }
    QUERN_TRY(check_disjoint(flat, path));
  }
  std::vector<ExpressionId> out;
  for (size_t i = 0; i < branches.size(); ++i) {
    const std::string place = fmt::format("{}.{}[{}]", path, keyword, i);
    const OrderedJson* branch = &branches[i];
    if (!alone) {
      const OrderedJson flat = QUERN_TRY(resolver_.flattened(branches[i], place));
      branch = keep(QUERN_TRY(resolver_.merged(rest, flat, place)));
    }
    out.push_back(QUERN_TRY(value(*branch, place, depth + 1)));
  }
  return out_.choice(std::move(out));
}

Result<ExpressionId> SchemaCompiler::enumeration(const OrderedJson& schema,
                                                 const std::string& path) {
  if (schema.contains("enum") && !schema.at("enum").is_array())
    return schema_error(path, "keyword `enum` must be a list");
  for (const auto& [key, content] : schema.items()) {
    if (key != "enum" && key != "const" && key != "type" && !is_schema_annotation(key)) {
      return schema_error(
          path, fmt::format("keyword `{}` beside `enum` or `const` is not supported", key));
    }
  }
  const bool typed = schema.contains("type");
  const std::vector<std::string> allowed =
      typed ? QUERN_TRY(schema_types(schema, path)) : std::vector<std::string>();
  std::vector<ExpressionId> branches;
  for (const OrderedJson& value : schema_constants(schema)) {
    const std::string_view type = json_type_of(value);
    const bool fits = std::any_of(allowed.begin(), allowed.end(), [&](const std::string& name) {
      return name == type || (name == "integer" && value.is_number_integer());
    });
    if (!typed || fits) branches.push_back(json_.literal(value));
  }
  return out_.choice(std::move(branches));
}

Result<ExpressionId> SchemaCompiler::typed(const std::string& type,
                                           const OrderedJson& schema,
                                           const std::string& path) {
  if (type == "object") return out_.call(rule_of(&schema, path, Part::kObject));
  if (type == "array") return out_.call(rule_of(&schema, path, Part::kArray));
  if (type == "string") return scalars_.string(schema, path);
  if (type == "integer") return scalars_.integer(schema, path);
  if (type == "number") return scalars_.number(schema, path);
  return type == "boolean" ? json_.boolean() : json_.null();
}

// A member that the schema does not name: its name is spelled without needless escapes, so that it
// cannot be a named one in disguise.
Result<ExpressionId> SchemaCompiler::extra_member(const OrderedJson& schema,
                                                  const std::string& path) {
  const bool named = schema.contains("properties");
  const auto additional = schema.find("additionalProperties");
  if (additional == schema.end() && named) return out_.nothing();
  const ExpressionId content =
      additional == schema.end() ? json_.value()
                                 : QUERN_TRY(value(*additional, path + ".additionalProperties", 1));
  if (content == out_.nothing()) return content;
  std::vector<ExpressionId> names;
  if (named) {
    for (const auto& [name, property] : schema.at("properties").items()) {
      std::string quoted = OrderedJson(name).dump();
      names.push_back(out_.literal(std::string_view(quoted).substr(1, quoted.size() - 2)));
    }
  }
  if (names.empty()) return out_.sequence({json_.string(), json_.colon(), content});
  const ExpressionId other =
      out_.except(json_.characters(0, kUnbounded), out_.choice(std::move(names)));
  return out_.sequence({json_.quoted(other), json_.colon(), content});
}

Result<ExpressionId> SchemaCompiler::object(const OrderedJson& schema, const std::string& path) {
  static const OrderedJson no_properties = OrderedJson::object();
  const auto found = schema.find("properties");
  const OrderedJson& properties = found == schema.end() ? no_properties : *found;
  if (!properties.is_object()) return schema_error(path, "keyword `properties` must be an object");
  const OrderedJson required = schema.value("required", OrderedJson::array());
  const auto is_name = [](const OrderedJson& name) { return name.is_string(); };
  if (!required.is_array() || !std::all_of(required.begin(), required.end(), is_name))
    return schema_error(path, "keyword `required` must be a list of names");
  ListItems members;
  const auto add = [&](const std::string& name, ExpressionId content, bool needed) {
    members.items.push_back(
        out_.sequence({json_.literal(OrderedJson(name)), json_.colon(), content}));
    members.required.push_back(needed);
  };
  for (const auto& [name, property] : properties.items()) {
    const std::string place = fmt::format("{}.properties.{}", path, name);
    const bool needed = std::find(required.begin(), required.end(), name) != required.end();
    add(name, QUERN_TRY(value(property, place, 1)), needed);
  }
  members.extra = QUERN_TRY(extra_member(schema, path));
  const auto additional = schema.find("additionalProperties");
  for (const OrderedJson& name : required) {
    const auto& text = name.get_ref<const std::string&>();
    if (properties.contains(text)) continue;
    if (members.extra == out_.nothing()) {
      return schema_error(
          path, fmt::format("keyword `required` names `{}`, which `properties` does not", text));
    }
    add(text,
        additional == schema.end()
            ? json_.value()
            : QUERN_TRY(value(*additional, path + ".additionalProperties", 1)),
        true);
  }
  return json_.enclosed('{', std::move(members), '}');
}

// Long arrays keep their items in a rule, so that each further item costs a few states.
Result<ExpressionId> SchemaCompiler::item(const OrderedJson& schema,
                                          const std::string& path,
                                          const SchemaCounts& times) {
  if (times.min <= kInlineRepeats && times.max <= kInlineRepeats) return value(schema, path, 1);
  return out_.call(rule_of(&schema, path, Part::kValue));
}

Result<ExpressionId> SchemaCompiler::array(const OrderedJson& schema, const std::string& path) {
  static const OrderedJson anything = true;
  static const OrderedJson nothing = false;
  const SchemaCounts times = QUERN_TRY(schema_counts(schema, "minItems", "maxItems", path));
  static const OrderedJson no_prefix = OrderedJson::array();
  const auto listed = schema.find("prefixItems");
  const OrderedJson& prefix = listed == schema.end() ? no_prefix : *listed;
  if (!prefix.is_array())
    return schema_error(path, "keyword `prefixItems` must be a list of schemas");
  const auto found = schema.find("items");
  if (found != schema.end() && found->is_array())
    return schema_error(path, "keyword `items` must be a schema; a list belongs in `prefixItems`");
  const OrderedJson& rest = found != schema.end() ? *found : prefix.empty() ? anything : nothing;
  const auto first = static_cast<int32_t>(prefix.size());
  if (times.max != kUnbounded && times.max < times.min) return out_.nothing();
  // The items behind the prefix, the comma before each included.
  const SchemaCounts more = {std::max(times.min - first, 0),
                             times.max == kUnbounded ? kUnbounded : std::max(times.max - first, 0)};
  const ExpressionId one = QUERN_TRY(item(rest, path + ".items", more));
  const ExpressionId next = out_.sequence({json_.comma(), one});
  ExpressionId tail = out_.repeat(next, more.min, more.max);
  if (first == 0) {
    const int32_t others = more.max == kUnbounded ? kUnbounded : more.max - 1;
    tail = more.max == 0
               ? out_.empty()
               : out_.sequence({one, out_.repeat(next, std::max(more.min - 1, 0), others)});
    if (more.min == 0) tail = out_.choice({out_.empty(), tail});
  }
  for (int32_t i = first - 1; i >= 0; --i) {
    if (times.max != kUnbounded && i >= times.max) {
      tail = out_.empty();
      continue;
    }
    const std::string place = fmt::format("{}.prefixItems[{}]", path, i);
    const ExpressionId here = QUERN_TRY(value(prefix.at(static_cast<size_t>(i)), place, 1));
    tail = out_.sequence({here, tail});
    if (i > 0) tail = out_.sequence({json_.comma(), tail});
    if (i >= times.min) tail = out_.choice({out_.empty(), tail});
  }
  return out_.sequence({out_.literal("["), tail, out_.literal("]")});
}

}  // namespace

Result<ExpressionId> schema_expression(const OrderedJson& schema,
                                       std::string_view where,
                                       JsonExpressions& json,
                                       Expressions& out) {
  return SchemaCompiler(schema, where, json, out).run();
}

}  // namespace quern
