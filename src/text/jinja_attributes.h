// How a template reaches into a value: object.name and object[key] as Jinja2 resolves them.
#pragma once

#include <string_view>
#include <vector>

#include "text/jinja_runtime.h"
#include "text/jinja_value.h"

namespace quern::jinja {

// object.name: the method or attribute first, then the element of that key; undefined without
// either. Errors: the object is undefined; memory.
Result<Value> get_attribute(Runtime& runtime, const Value& object, std::string_view name);

// object[key]: the element first, then the attribute. Errors: as above, and a malformed slice.
Result<Value> get_item(Runtime& runtime, const Value& object, const Value& key);

// The `attribute` argument of filters: a dotted path or an index. Digits count as indices.
class AttributePath {
 public:
  // A missing or none argument is the empty path, the value itself. Errors: another type.
  static Result<AttributePath> parse(Runtime& runtime, const Value& argument);
  // "a.b,c": the keys that sort compares one after the other.
  static Result<std::vector<AttributePath>> parse_list(Runtime& runtime, const Value& argument);

  // `fallback`, unless missing, replaces what is undefined on the way.
  Result<Value> get(Runtime& runtime, Value object, const Value& fallback = {}) const;

 private:
  std::vector<Value> keys_;
};

}  // namespace quern::jinja
