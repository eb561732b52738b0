#include "text/json_schema.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "base/result.h"
#include "text/grammar_regex.h"
#include "text/json_schema_merge.h"

namespace quern {
namespace {

using OrderedJson = nlohmann::ordered_json;

constexpr int kMaxSchemaDepth = 64;  // of anyOf and references to scalars, one within another
constexpr int kMaxMerges = 1000;     // of allOf and of keywords beside $ref and anyOf
constexpr int64_t kBindingCount = 1'000'000;  // no answer is as long: counts above do not bind
constexpr int32_t kInlineRepeats = 8;  // arrays that may be longer keep their items in a rule
constexpr size_t kMaxShownPath = 200;
constexpr int32_t kAnyText = -1;  // in place of an expression: no constraint on a string

constexpr std::array<std::string_view, 6> kTypes = {"object", "array",   "string",
                                                    "number", "boolean", "null"};
constexpr std::array<std::string_view, 24> kAssertions = {
    "type",    "enum",        "const",    "properties", "required",         "additionalProperties",
    "items",   "prefixItems", "minItems", "maxItems",   "minLength",        "maxLength",
    "pattern", "format",      "minimum",  "maximum",    "exclusiveMinimum", "exclusiveMaximum",
    "anyOf",   "oneOf",       "allOf",    "$ref",       "uniqueItems",      "minProperties"};

// 29 February in the years that divide by 4 and not by 100, and in those that divide by 400.
constexpr std::string_view kDate =
    "(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]"
    "|"
    "30)|02-(?:0[1-9]|1[0-9]|2[0-8]))|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|"
    "[2468][048]|[13579][26])00)-02-29)";
constexpr std::string_view kTime =
    "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?"
    "(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])";
constexpr std::string_view kUuid = "[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}";
constexpr std::string_view kByte = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
constexpr std::string_view kEmail =
    "[A-Za-z0-9_+-]+(?:\\.[A-Za-z0-9_+-]+)*@[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    "(?:\\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)+";

// The expression of an enforced format; empty for one that only describes.
std::string format_pattern(std::string_view format) {
  if (format == "date") return fmt::format("^{}$", kDate);
  if (format == "time") return fmt::format("^{}$", kTime);
  if (format == "date-time") return fmt::format("^{}T{}$", kDate, kTime);
  if (format == "uuid") return fmt::format("^{}$", kUuid);
  if (format == "ipv4") return fmt::format("^{0}(?:\\.{0}){{3}}$", kByte);
  if (format == "email") return fmt::format("^{}$", kEmail);
  return {};
}

std::string_view type_of(const OrderedJson& value) {
  if (value.is_object()) return "object";
  if (value.is_array()) return "array";
  if (value.is_string()) return "string";
  if (value.is_number()) return "number";
  return value.is_boolean() ? "boolean" : "null";
}

bool has_any(const OrderedJson& schema, std::initializer_list<const char*> keywords) {
  return std::any_of(keywords.begin(), keywords.end(),
                     [&](const char* key) { return schema.contains(key); });
}

bool has_assertions(const OrderedJson& schema) {
  for (const auto& [key, value] : schema.items()) {
    if (!is_schema_annotation(key)) return true;
  }
  return false;
}

class SchemaCompiler {
 public:
  SchemaCompiler(const OrderedJson& root,
                 std::string_view where,
                 JsonExpressions& json,
                 Expressions& out)
      : root_(root), where_(where), json_(json), out_(out) {}

  Result<ExpressionId> run();

 private:
  enum class Part { kValue, kObject, kArray };

  struct Pending {
    RuleId rule;
    const OrderedJson* schema;
    std::string path;
    Part part;
  };

  struct Counts {
    int32_t min = 0;
    int32_t max = kUnbounded;
  };

  Error wrong(const std::string& path, std::string_view what) const;
  const OrderedJson* keep(OrderedJson schema);
  RuleId rule_of(const OrderedJson* schema, const std::string& path, Part part);
  Result<const OrderedJson*> resolve(const OrderedJson& reference, const std::string& path) const;
  Result<OrderedJson> flattened(const OrderedJson& schema, const std::string& path, int depth);
  Result<OrderedJson> merged(const OrderedJson& a, const OrderedJson& b, const std::string& path);

  Result<Unit> check_keywords(const OrderedJson& schema, const std::string& path) const;
  Result<std::vector<std::string>> types(const OrderedJson& schema, const std::string& path) const;
  std::vector<OrderedJson> constants(const OrderedJson& schema) const;

  Result<ExpressionId> value(const OrderedJson& schema, const std::string& path, int depth);
  Result<ExpressionId> reference(const OrderedJson& schema, const std::string& path, int depth);
  Result<ExpressionId> alternatives(const OrderedJson& schema,
                                    const std::string& keyword,
                                    const std::string& path,
                                    int depth);
  Result<Unit> check_disjoint(const OrderedJson& branches, const std::string& path);
  Result<bool> disjoint(const OrderedJson& a, const OrderedJson& b, const std::string& path) const;
  bool disjoint_constants(const OrderedJson& a, const OrderedJson& b) const;
  Result<ExpressionId> enumeration(const OrderedJson& schema, const std::string& path);
  Result<ExpressionId> typed(const std::string& type,
                             const OrderedJson& schema,
                             const std::string& path);
  Result<ExpressionId> string(const OrderedJson& schema, const std::string& path);
  Result<ExpressionId> string_content(const OrderedJson& schema, const std::string& path);
  Result<ExpressionId> integer(const OrderedJson& schema, const std::string& path);
  Result<ExpressionId> number(const OrderedJson& schema, const std::string& path);
  Result<ExpressionId> object(const OrderedJson& schema, const std::string& path);
  Result<ExpressionId> extra_member(const OrderedJson& schema, const std::string& path);
  Result<ExpressionId> array(const OrderedJson& schema, const std::string& path);
  Result<ExpressionId> item(const OrderedJson& schema,
                            const std::string& path,
                            const Counts& times);

  Result<Counts> counts(const OrderedJson& schema,
                        const char* min_key,
                        const char* max_key,
                        const std::string& path) const;
  Result<std::optional<DecimalBound>> bound(const OrderedJson& schema,
                                            const char* inclusive,
                                            const char* exclusive,
                                            const std::string& path) const;
  Result<ExpressionId> pattern(std::string_view text, const std::string& path);

  const OrderedJson& root_;
  std::string where_;
  JsonExpressions& json_;
  Expressions& out_;
  std::deque<OrderedJson> kept_;  // schemas that merging made; their addresses stay
  std::map<std::pair<const OrderedJson*, Part>, RuleId> rules_;
  std::map<std::string, int32_t> strings_;  // by constraints: their rule, or kAnyText
  std::deque<Pending> pending_;
  int merges_ = 0;
};

Error SchemaCompiler::wrong(const std::string& path, std::string_view what) const {
  std::string shown = path;
  if (shown.size() > kMaxShownPath) {
    size_t begin = shown.size() - kMaxShownPath;
    while (begin < shown.size() && (static_cast<unsigned char>(shown[begin]) & 0xC0) == 0x80)
      ++begin;  // whole code points
    shown = "..." + shown.substr(begin);
  }
  return {ErrorCode::kInvalidArgument, fmt::format("{}: {}", shown, what)};
}

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

Result<const OrderedJson*> SchemaCompiler::resolve(const OrderedJson& reference,
                                                   const std::string& path) const {
  if (!reference.is_string()) return wrong(path, "keyword `$ref` must be a string");
  const std::string& text = reference.get_ref<const std::string&>();
  if (text != "#" && !text.starts_with("#/")) {
    return wrong(path, fmt::format("`$ref` to `{}`: only places in this schema (#/...) are "
                                   "supported",
                                   text));
  }
  const OrderedJson* at = &root_;
  for (size_t begin = 1; begin < text.size();) {
    size_t end = text.find('/', begin + 1);
    if (end == std::string::npos) end = text.size();
    std::string key = text.substr(begin + 1, end - begin - 1);
    for (const auto& [from, to] : {std::pair("~1", "/"), std::pair("~0", "~")}) {
      for (size_t i = key.find(from); i != std::string::npos; i = key.find(from, i + 1))
        key.replace(i, 2, to);
    }
    const OrderedJson* next = nullptr;
    if (at->is_object() && at->contains(key)) next = &at->at(key);
    if (at->is_array() && !key.empty() && key.size() < 6 &&
        key.find_first_not_of("0123456789") == std::string::npos && std::stoul(key) < at->size())
      next = &at->at(std::stoul(key));
    if (next == nullptr) return wrong(path, fmt::format("`$ref` to `{}`: nothing is there", text));
    at = next;
    begin = end;
  }
  return at;
}

Result<OrderedJson> SchemaCompiler::merged(const OrderedJson& a,
                                           const OrderedJson& b,
                                           const std::string& path) {
  if (++merges_ > kMaxMerges) {
    return wrong(path, fmt::format("more than {} schemas to merge (allOf, or keywords beside $ref "
                                   "or anyOf)",
                                   kMaxMerges));
  }
  return merge_schemas(a, b, path);
}

// The schema without $ref and allOf of its own.
Result<OrderedJson> SchemaCompiler::flattened(const OrderedJson& schema,
                                              const std::string& path,
                                              int depth) {
  if (depth > kMaxSchemaDepth) return wrong(path, "references or allOf nested too deeply");
  OrderedJson out = schema;
  if (!out.is_object()) return out;
  if (const auto ref = out.find("$ref"); ref != out.end()) {
    const OrderedJson* target = QUERN_TRY(resolve(*ref, path));
    out.erase("$ref");
    const OrderedJson base = QUERN_TRY(flattened(*target, path, depth + 1));
    out = QUERN_TRY(merged(base, out, path));
  }
  if (!out.is_object() || !out.contains("allOf")) return out;
  const OrderedJson parts = out["allOf"];
  out.erase("allOf");
  if (!parts.is_array() || parts.empty())
    return wrong(path, "keyword `allOf` must be a list of schemas, not empty");
  for (const OrderedJson& part : parts) {
    const OrderedJson flat = QUERN_TRY(flattened(part, path, depth + 1));
    out = QUERN_TRY(merged(out, flat, path));
  }
  return out;
}

Result<Unit> SchemaCompiler::check_keywords(const OrderedJson& schema,
                                            const std::string& path) const {
  for (const auto& [key, content] : schema.items()) {
    const bool harmless =
        (key == "uniqueItems" && content == false) || (key == "minProperties" && content == 0);
    if (is_schema_annotation(key) || harmless) continue;
    const bool known = std::find(kAssertions.begin(), kAssertions.end(), key) != kAssertions.end();
    if (!known || key == "uniqueItems" || key == "minProperties")
      return wrong(path, fmt::format("keyword `{}` is not supported", key));
  }
  return Unit{};
}

Result<std::vector<std::string>> SchemaCompiler::types(const OrderedJson& schema,
                                                       const std::string& path) const {
  std::vector<std::string> out;
  if (const auto type = schema.find("type"); type != schema.end()) {
    const OrderedJson list = type->is_array() ? *type : OrderedJson::array({*type});
    for (const OrderedJson& name : list) {
      const bool known =
          name == "integer" || std::find(kTypes.begin(), kTypes.end(), name) != kTypes.end();
      if (!known) {
        return wrong(path,
                     "keyword `type` must name object, array, string, number, integer, "
                     "boolean or null, or a list of these");
      }
      out.push_back(name.get<std::string>());
    }
    return out;
  }
  const auto infer = [&](const char* type, std::initializer_list<const char*> keywords) {
    if (has_any(schema, keywords)) out.emplace_back(type);
  };
  infer("object", {"properties", "required", "additionalProperties"});
  infer("array", {"items", "prefixItems", "minItems", "maxItems"});
  infer("string", {"minLength", "maxLength", "pattern", "format"});
  infer("number", {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"});
  if (out.empty()) out.assign(kTypes.begin(), kTypes.end());
  return out;
}

Result<ExpressionId> SchemaCompiler::reference(const OrderedJson& schema,
                                               const std::string& path,
                                               int depth) {
  const OrderedJson* target = QUERN_TRY(resolve(schema.at("$ref"), path));
  const bool scalar =
      target->is_object() && (has_any(*target, {"enum", "const"}) ||
                              (target->contains("type") && target->at("type").is_string() &&
                               target->at("type") != "object" && target->at("type") != "array"));
  if (scalar) return value(*target, path, depth + 1);
  return out_.call(rule_of(target, path, Part::kValue));
}

Result<ExpressionId> SchemaCompiler::value(const OrderedJson& schema,
                                           const std::string& path,
                                           int depth) {
  if (depth > kMaxSchemaDepth) return wrong(path, "nested too deeply");
  if (schema.is_boolean()) return schema.get<bool>() ? json_.value() : out_.nothing();
  if (!schema.is_object()) return wrong(path, "a schema must be an object or a boolean");
  QUERN_TRY(check_keywords(schema, path));
  if (schema.contains("$ref")) {
    OrderedJson rest = schema;
    rest.erase("$ref");
    if (!has_assertions(rest)) return reference(schema, path, depth);
  }
  if (has_any(schema, {"$ref", "allOf"}))
    return value(*keep(QUERN_TRY(flattened(schema, path, 0))), path, depth + 1);
  for (const char* keyword : {"anyOf", "oneOf"}) {
    if (schema.contains(keyword)) return alternatives(schema, keyword, path, depth);
  }
  if (has_any(schema, {"enum", "const"})) return enumeration(schema, path);
  if (!has_assertions(schema)) return json_.value();
  std::vector<ExpressionId> branches;
  for (const std::string& type : QUERN_TRY(types(schema, path)))
    branches.push_back(QUERN_TRY(typed(type, schema, path)));
  return out_.choice(std::move(branches));
}

Result<ExpressionId> SchemaCompiler::alternatives(const OrderedJson& schema,
                                                  const std::string& keyword,
                                                  const std::string& path,
                                                  int depth) {
  const OrderedJson& branches = schema.at(keyword);
  if (!branches.is_array() || branches.empty())
    return wrong(path, fmt::format("keyword `{}` must be a list of schemas, not empty", keyword));
  OrderedJson rest = schema;
  rest.erase(keyword);
  const bool alone = !has_assertions(rest);
  if (keyword == "oneOf") QUERN_TRY(check_disjoint(branches, path));
  std::vector<ExpressionId> out;
  for (size_t i = 0; i < branches.size(); ++i) {
    const std::string place = fmt::format("{}.{}[{}]", path, keyword, i);
    const OrderedJson* branch = &branches[i];
    if (!alone) {
      const OrderedJson flat = QUERN_TRY(flattened(branches[i], place, 0));
      branch = keep(QUERN_TRY(merged(rest, flat, place)));
    }
    out.push_back(QUERN_TRY(value(*branch, place, depth + 1)));
  }
  return out_.choice(std::move(out));
}

std::vector<OrderedJson> SchemaCompiler::constants(const OrderedJson& schema) const {
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

bool SchemaCompiler::disjoint_constants(const OrderedJson& a, const OrderedJson& b) const {
  if (!a.is_object() || !b.is_object()) return false;
  if (!has_any(a, {"enum", "const"}) || !has_any(b, {"enum", "const"})) return false;
  const std::vector<OrderedJson> others = constants(b);
  for (const OrderedJson& value : constants(a)) {
    if (std::find(others.begin(), others.end(), value) != others.end()) return false;
  }
  return true;
}

Result<bool> SchemaCompiler::disjoint(const OrderedJson& a,
                                      const OrderedJson& b,
                                      const std::string& path) const {
  if (!a.is_object() || !b.is_object()) return a == false || b == false;
  if (disjoint_constants(a, b)) return true;
  const auto kinds = [&](const OrderedJson& schema) -> Result<std::vector<std::string>> {
    if (has_any(schema, {"anyOf", "oneOf", "not"}) && !schema.contains("type"))
      return std::vector<std::string>(kTypes.begin(), kTypes.end());
    if (!has_any(schema, {"enum", "const"})) return types(schema, path);
    std::vector<std::string> out;
    for (const OrderedJson& value : constants(schema)) out.emplace_back(type_of(value));
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

Result<Unit> SchemaCompiler::check_disjoint(const OrderedJson& branches, const std::string& path) {
  std::vector<OrderedJson> flat;
  for (const OrderedJson& branch : branches) flat.push_back(QUERN_TRY(flattened(branch, path, 0)));
  for (size_t i = 0; i < flat.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (!QUERN_TRY(disjoint(flat[i], flat[j], path))) {
        return wrong(path, fmt::format("keyword `oneOf`: a value may satisfy both branch {} and "
                                       "branch {}; give them different types or a required "
                                       "property with different constants, or use `anyOf`",
                                       j, i));
      }
    }
  }
  return Unit{};
}

Result<ExpressionId> SchemaCompiler::enumeration(const OrderedJson& schema,
                                                 const std::string& path) {
  if (schema.contains("enum") && !schema.at("enum").is_array())
    return wrong(path, "keyword `enum` must be a list");
  for (const auto& [key, content] : schema.items()) {
    if (key != "enum" && key != "const" && key != "type" && !is_schema_annotation(key)) {
      return wrong(path,
                   fmt::format("keyword `{}` beside `enum` or `const` is not supported", key));
    }
  }
  const bool typed = schema.contains("type");
  const std::vector<std::string> allowed =
      typed ? QUERN_TRY(types(schema, path)) : std::vector<std::string>();
  std::vector<ExpressionId> branches;
  for (const OrderedJson& value : constants(schema)) {
    const std::string_view type = type_of(value);
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
  if (type == "string") return string(schema, path);
  if (type == "integer") return integer(schema, path);
  if (type == "number") return number(schema, path);
  return type == "boolean" ? json_.boolean() : json_.null();
}

Result<SchemaCompiler::Counts> SchemaCompiler::counts(const OrderedJson& schema,
                                                      const char* min_key,
                                                      const char* max_key,
                                                      const std::string& path) const {
  Counts out;
  for (const char* key : {min_key, max_key}) {
    const auto found = schema.find(key);
    if (found == schema.end()) continue;
    const bool whole = found->is_number_integer() ||
                       (found->is_number_float() && std::floor(found->get<double>()) == *found);
    if (!whole || *found < 0)
      return wrong(path, fmt::format("keyword `{}` must be an integer of at least 0", key));
    const bool binds = *found <= kBindingCount;
    if (key == max_key) out.max = binds ? found->get<int32_t>() : kUnbounded;
    if (key == min_key && !binds)
      return wrong(path, fmt::format("keyword `{}` is above {}", key, kBindingCount));
    if (key == min_key) out.min = found->get<int32_t>();
  }
  return out;
}

Result<ExpressionId> SchemaCompiler::pattern(std::string_view text, const std::string& path) {
  const RegexOptions options = {TextEncoding::kJsonString, RegexMatch::kSearch};
  const Result<ExpressionId> parsed = regex_expression(text, options, out_);
  if (!parsed) return wrong(path, fmt::format("keyword `pattern`: {}", parsed.error().message));
  return *parsed;
}

// Strings with equal constraints share a rule: long ones have many states.
Result<ExpressionId> SchemaCompiler::string(const OrderedJson& schema, const std::string& path) {
  OrderedJson constraints;
  for (const char* key : {"minLength", "maxLength", "pattern", "format"}) {
    if (schema.contains(key)) constraints[key] = schema.at(key);
  }
  if (constraints.is_null()) return json_.string();
  const auto [known, added] = strings_.emplace(constraints.dump(), 0);
  if (added) {
    const ExpressionId content = QUERN_TRY(string_content(constraints, path));
    known->second = content;
    if (content != kAnyText) {
      known->second = out_.add_rule(path);
      out_.set_rule(known->second, json_.quoted(content));
    }
  }
  return known->second == kAnyText ? json_.string() : out_.call(known->second);
}

// What may stand between the quotes, or kAnyText.
Result<ExpressionId> SchemaCompiler::string_content(const OrderedJson& schema,
                                                    const std::string& path) {
  std::vector<ExpressionId> parts;
  if (has_any(schema, {"minLength", "maxLength"})) {
    const Counts times = QUERN_TRY(counts(schema, "minLength", "maxLength", path));
    parts.push_back(json_.characters(times.min, times.max));
  }
  if (const auto found = schema.find("pattern"); found != schema.end()) {
    for (const OrderedJson& one : found->is_array() ? *found : OrderedJson::array({*found})) {
      if (!one.is_string()) return wrong(path, "keyword `pattern` must be a string");
      parts.push_back(QUERN_TRY(pattern(one.get_ref<const std::string&>(), path)));
    }
  }
  if (const auto found = schema.find("format"); found != schema.end()) {
    if (!found->is_string()) return wrong(path, "keyword `format` must be a string");
    const std::string enforced = format_pattern(found->get_ref<const std::string&>());
    if (!enforced.empty()) parts.push_back(QUERN_TRY(pattern(enforced, path)));
  }
  if (parts.empty()) return kAnyText;
  ExpressionId all = parts[0];
  for (size_t i = 1; i < parts.size(); ++i) all = out_.both(all, parts[i]);
  return all;
}

Result<std::optional<DecimalBound>> SchemaCompiler::bound(const OrderedJson& schema,
                                                          const char* inclusive,
                                                          const char* exclusive,
                                                          const std::string& path) const {
  std::optional<DecimalBound> out;
  double chosen = 0;
  for (const char* key : {inclusive, exclusive}) {
    const auto found = schema.find(key);
    if (found == schema.end()) continue;
    if (!found->is_number()) return wrong(path, fmt::format("keyword `{}` must be a number", key));
    const std::optional<Decimal> decimal = decimal_of(*found);
    if (!decimal) {
      return wrong(path, fmt::format("keyword `{}`: {} needs more than 15 decimal digits", key,
                                     found->dump()));
    }
    const auto number = found->get<double>();
    const bool lower = std::string_view(inclusive) == "minimum";
    const bool tighter = !out || number == chosen || (lower ? number > chosen : number < chosen);
    if (!tighter) continue;
    out = DecimalBound{*decimal, key == exclusive};
    chosen = number;
  }
  return out;
}

Result<ExpressionId> SchemaCompiler::number(const OrderedJson& schema, const std::string& path) {
  const auto min = QUERN_TRY(bound(schema, "minimum", "exclusiveMinimum", path));
  const auto max = QUERN_TRY(bound(schema, "maximum", "exclusiveMaximum", path));
  return min || max ? json_.number_between(min, max) : json_.number();
}

Result<ExpressionId> SchemaCompiler::integer(const OrderedJson& schema, const std::string& path) {
  std::optional<int64_t> least;
  std::optional<int64_t> most;
  for (const char* key : {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"}) {
    const auto found = schema.find(key);
    if (found == schema.end()) continue;
    if (!found->is_number()) return wrong(path, fmt::format("keyword `{}` must be a number", key));
    constexpr double kFar = 2e18;  // beyond every integer that is written
    const double number = std::clamp(found->get<double>(), -kFar, kFar);
    const bool exact = found->is_number_integer() && std::abs(number) < kFar;
    const std::string_view name = key;
    const bool exclusive = name.starts_with("exclusive");
    if (name == "minimum" || name == "exclusiveMinimum") {
      int64_t low = exact ? found->get<int64_t>() : static_cast<int64_t>(std::ceil(number));
      if (exclusive && (exact || std::ceil(number) == number)) ++low;
      least = std::max(least.value_or(low), low);
    } else {
      int64_t high = exact ? found->get<int64_t>() : static_cast<int64_t>(std::floor(number));
      if (exclusive && (exact || std::floor(number) == number)) --high;
      most = std::min(most.value_or(high), high);
    }
  }
  return least || most ? json_.integer_between(least, most) : json_.integer();
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
  if (!properties.is_object()) return wrong(path, "keyword `properties` must be an object");
  const OrderedJson required = schema.value("required", OrderedJson::array());
  const auto is_name = [](const OrderedJson& name) { return name.is_string(); };
  if (!required.is_array() || !std::all_of(required.begin(), required.end(), is_name))
    return wrong(path, "keyword `required` must be a list of names");
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
      return wrong(path,
                   fmt::format("keyword `required` names `{}`, which `properties` does not", text));
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
                                          const Counts& times) {
  if (times.min <= kInlineRepeats && times.max <= kInlineRepeats) return value(schema, path, 1);
  return out_.call(rule_of(&schema, path, Part::kValue));
}

Result<ExpressionId> SchemaCompiler::array(const OrderedJson& schema, const std::string& path) {
  static const OrderedJson anything = true;
  static const OrderedJson nothing = false;
  Counts times = QUERN_TRY(counts(schema, "minItems", "maxItems", path));
  static const OrderedJson no_prefix = OrderedJson::array();
  const auto listed = schema.find("prefixItems");
  const OrderedJson& prefix = listed == schema.end() ? no_prefix : *listed;
  if (!prefix.is_array()) return wrong(path, "keyword `prefixItems` must be a list of schemas");
  const auto found = schema.find("items");
  if (found != schema.end() && found->is_array())
    return wrong(path, "keyword `items` must be a schema; a list belongs in `prefixItems`");
  const OrderedJson& rest = found != schema.end() ? *found : prefix.empty() ? anything : nothing;
  const auto first = static_cast<int32_t>(prefix.size());
  if (times.max != kUnbounded && times.max < times.min) return out_.nothing();
  // The items behind the prefix, the comma before each included.
  const Counts more = {std::max(times.min - first, 0),
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
