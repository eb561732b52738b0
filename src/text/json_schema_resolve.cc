#include "text/json_schema_resolve.h"

#include <fmt/format.h>

#include "text/json_schema_keywords.h"
#include "text/json_schema_merge.h"

namespace quern {
namespace {

using OrderedJson = nlohmann::ordered_json;

constexpr int kMaxMerges = 1000;  // of allOf and of keywords beside $ref and anyOf

}  // namespace

Result<const OrderedJson*> SchemaResolver::resolve(const OrderedJson& reference,
                                                   const std::string& path) const {
  if (!reference.is_string()) return schema_error(path, "keyword `$ref` must be a string");
  const std::string& text = reference.get_ref<const std::string&>();
  if (text != "#" && !text.starts_with("#/")) {
    return schema_error(path, fmt::format("`$ref` to `{}`: only places in this schema (#/...) are "
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
    if (next == nullptr)
      return schema_error(path, fmt::format("`$ref` to `{}`: nothing is there", text));
    at = next;
    begin = end;
  }
  return at;
}

Result<OrderedJson> SchemaResolver::merged(const OrderedJson& a,
                                           const OrderedJson& b,
                                           const std::string& path) {
  if (++merges_ > kMaxMerges) {
    return schema_error(path,
                        fmt::format("more than {} schemas to merge (allOf, or keywords beside $ref "
                                    "or anyOf)",
                                    kMaxMerges));
  }
  return merge_schemas(a, b, path);
}

Result<OrderedJson> SchemaResolver::flattened(const OrderedJson& schema,
                                              const std::string& path,
                                              int depth) {
  if (depth > kMaxSchemaDepth) return schema_error(path, "references or allOf nested too deeply");
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
    return schema_error(path, "keyword `allOf` must be a list of schemas, not empty");
  for (const OrderedJson& part : parts) {
    const OrderedJson flat = QUERN_TRY(flattened(part, path, depth + 1));
    out = QUERN_TRY(merged(out, flat, path));
  }
  return out;
}

}  // namespace quern
