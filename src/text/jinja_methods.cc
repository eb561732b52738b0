#include "text/jinja_methods.h"

#include <fmt/format.h>

#include "text/jinja_methods_tables.h"
#include "text/jinja_operators.h"

namespace quern::jinja {
namespace {

const Dict& dict_of(const Call& call) { return *call.args[0].dict; }

enum class Part { kKeys, kValues };

Result<std::vector<Value>> dict_part(Runtime& runtime, const Dict& dict, Part part) {
  QUERN_TRY(runtime.step(static_cast<int64_t>(dict.pairs.size())));
  std::vector<Value> result;
  for (const Pair& pair : dict.pairs) {
    result.push_back(part == Part::kKeys ? pair.key : pair.value);
  }
  return result;
}

Result<Value> dict_items_method(Runtime& runtime, const Call& call) {
  QUERN_TRY(call.bind({""}, 1));
  return runtime.sequence(Kind::kView, QUERN_TRY(dict_items(runtime, dict_of(call))), "dict_items");
}

Result<Value> dict_keys(Runtime& runtime, const Call& call) {
  QUERN_TRY(call.bind({""}, 1));
  return runtime.sequence(Kind::kView, QUERN_TRY(dict_part(runtime, dict_of(call), Part::kKeys)),
                          "dict_keys");
}

Result<Value> dict_values(Runtime& runtime, const Call& call) {
  QUERN_TRY(call.bind({""}, 1));
  return runtime.sequence(Kind::kView, QUERN_TRY(dict_part(runtime, dict_of(call), Part::kValues)),
                          "dict_values");
}

Result<Value> dict_get(Runtime& runtime, const Call& call) {
  const auto a = QUERN_TRY(call.bind({"", "", ""}, 2));
  const Value found = QUERN_TRY(item(runtime, a[0], a[1]));
  if (found.given()) return found;
  return a[2].given() ? a[2] : Value::none();
}

// Nothing changes a list or dict once it is made, so its copy is itself.
Result<Value> copy(Runtime&, const Call& call) {
  QUERN_TRY(call.bind({""}, 1));
  return call.args[0];
}

Result<Value> sequence_count(Runtime& runtime, const Call& call) {
  const auto a = QUERN_TRY(call.bind({"", ""}, 2));
  int64_t count = 0;
  for (const Value& element : a[0].sequence->items) {
    count += QUERN_TRY(equals(runtime, element, a[1])) ? 1 : 0;
  }
  return Value::from(count);
}

Result<Value> sequence_index(Runtime& runtime, const Call& call) {
  const auto a = QUERN_TRY(call.bind({"", ""}, 2));
  const auto items = a[0].sequence->items;
  for (size_t i = 0; i < items.size(); ++i) {
    if (QUERN_TRY(equals(runtime, items[i], a[1]))) return Value::from(static_cast<int64_t>(i));
  }
  return template_error("index(): the list has no such element");
}

constexpr Function kDictMethods[] = {
    {"copy", copy},      {"get", dict_get},       {"items", dict_items_method},
    {"keys", dict_keys}, {"values", dict_values},
};

constexpr Function kListMethods[] = {
    {"copy", copy}, {"count", sequence_count}, {"index", sequence_index}};

constexpr Function kTupleMethods[] = {{"count", sequence_count}, {"index", sequence_index}};

}  // namespace

Result<std::vector<Value>> dict_items(Runtime& runtime, const Dict& dict) {
  QUERN_TRY(runtime.step(static_cast<int64_t>(dict.pairs.size())));
  std::vector<Value> result;
  for (const Pair& pair : dict.pairs) {
    result.push_back(QUERN_TRY(runtime.tuple({pair.key, pair.value})));
  }
  return result;
}

const Function* find_method(const Value& self, std::string_view name) {
  switch (self.kind) {
    case Kind::kString:
      return find_function(string_methods(), name);
    case Kind::kDict:
      return find_function(kDictMethods, name);
    case Kind::kList:
      return find_function(kListMethods, name);
    case Kind::kTuple:
    case Kind::kRange:
      return find_function(kTupleMethods, name);
    default:
      return nullptr;
  }
}

}  // namespace quern::jinja
