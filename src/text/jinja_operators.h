// Python's operators on template values: truth, equality, order, containment, arithmetic,
// subscripts.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "text/jinja_ast.h"
#include "text/jinja_runtime.h"
#include "text/jinja_value.h"

namespace quern::jinja {

bool truthy(const Value& value);

// `is` in Python: the same object. Texts are the same when they are equal.
bool identical(const Value& a, const Value& b);

// Errors of all below: steps, nesting, memory; and a type error where one is named.
Result<bool> equals(Runtime& runtime, const Value& a, const Value& b);

// a < b. Errors: the two have no order.
Result<bool> less(Runtime& runtime, const Value& a, const Value& b);

// needle in haystack. Errors: the haystack is no container.
Result<bool> contains(Runtime& runtime, const Value& haystack, const Value& needle);

Result<bool> compare(Runtime& runtime, CompareOp op, const Value& a, const Value& b);

// Errors: types that have no such operation, division by zero, results beyond 64 bits.
Result<Value> binary(Runtime& runtime, BinaryOp op, const Value& a, const Value& b);
Result<Value> negative(Runtime& runtime, const Value& value, UnaryOp op);

// The value under a key that is equal, or nullptr.
Result<const Value*> find_key(Runtime& runtime, const Dict& dict, const Value& key);
const Value* find_key(const Dict& dict, std::string_view key);

// Sets or adds a pair; grows the dict as needed. Errors: the key cannot be hashed.
Result<Unit> set_key(Runtime& runtime, Dict& dict, const Value& key, const Value& value);

// object[key] without Jinja2's fallback to attributes; kMissing where Python raises TypeError or
// LookupError.
Result<Value> item(Runtime& runtime, const Value& object, const Value& key);

// The elements that a `for` walks over; walking an iterator uses it up. Errors: not iterable.
Result<std::vector<Value>> elements(Runtime& runtime, const Value& value);

bool is_iterable(const Value& value);

// len(). Errors: the value has none.
Result<int64_t> length(const Value& value);

// Sorts stably by less(key, key). `keys` and `values` have the same size.
struct Keyed {
  std::vector<Value> keys;  // compared one after the other
  Value value;
};
Result<Unit> sort_keyed(Runtime& runtime, std::vector<Keyed>& items);

}  // namespace quern::jinja
