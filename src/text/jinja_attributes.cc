#include "text/jinja_attributes.h"

#include <fmt/format.h>

#include "text/jinja_callables.h"
#include "text/jinja_functions.h"
#include "text/jinja_methods.h"
#include "text/jinja_operators.h"
#include "text/jinja_repr.h"
#include "text/jinja_text.h"

namespace quern::jinja {
namespace {

Value bound_method(Runtime& runtime, const Value& self, const Function& function) {
  Value value;
  value.kind = Kind::kMethod;
  value.method = runtime.heap().make(Method{self, function});
  return value;
}

// What Python's getattr finds; kMissing when it raises AttributeError.
Result<Value> attribute(Runtime& runtime, const Value& object, std::string_view name) {
  if (object.is(Kind::kUndefined)) return template_error(std::string(object.string->bytes));
  if (object.is(Kind::kNamespace)) {
    if (name.starts_with('_')) return Value{};  // the sandbox lets no such name through
    const Value* found = find_key(*object.dict, name);
    return found == nullptr ? Value{} : *found;
  }
  if (object.is(Kind::kTuple) && object.sequence->name == "group") {
    if (name == "grouper") return object.sequence->items[0];
    if (name == "list") return object.sequence->items[1];
  }
  if (object.is(Kind::kMacro) && name == "name") return runtime.text(object.macro->name());
  if (object.is(Kind::kCycler) && name == "current") {
    return object.cycler->items[static_cast<size_t>(object.cycler->position)];
  }
  const Function* method =
      object.is(Kind::kCycler) ? find_cycler_method(name) : find_method(object, name);
  return method == nullptr ? Value{} : bound_method(runtime, object, *method);
}

bool is_digits(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

// Splits `text` at `separator` into texts or, where they are digits, integers.
Result<std::vector<Value>> path_keys(Runtime& runtime, const Str& text) {
  std::vector<Value> keys;
  size_t begin = 0;
  for (;;) {
    QUERN_TRY(runtime.step());
    const size_t dot = std::min(text.bytes.find('.', begin), text.bytes.size());
    const std::string_view part = text.bytes.substr(begin, dot - begin);
    if (is_digits(part) && part.size() < 10) {
      keys.push_back(Value::from(static_cast<int64_t>(std::stoll(std::string(part)))));
    } else {
      keys.push_back(slice_bytes(runtime, text, begin, dot));
    }
    if (dot == text.bytes.size()) return keys;
    begin = dot + 1;
  }
}

}  // namespace

Result<Value> get_attribute(Runtime& runtime, const Value& object, std::string_view name) {
  const Value found = QUERN_TRY(attribute(runtime, object, name));
  if (found.given()) return found;
  if (object.is(Kind::kDict)) {
    QUERN_TRY(runtime.step(static_cast<int64_t>(object.dict->pairs.size() / 4)));
    if (const Value* element = find_key(*object.dict, name)) return *element;
  }
  return runtime.undefined(object, name);
}

Result<Value> get_item(Runtime& runtime, const Value& object, const Value& key) {
  const Value found = QUERN_TRY(item(runtime, object, key));
  if (found.given()) return found;
  if (key.is(Kind::kString)) {
    const Value by_name = QUERN_TRY(attribute(runtime, object, key.string->bytes));
    if (by_name.given()) return by_name;
    return runtime.undefined(object, key.string->bytes);
  }
  TextBuilder reason(runtime);
  reason.append(fmt::format("'{} object' has no element ", type_name(object)));
  QUERN_TRY(append_repr(runtime, reason, key));
  return Value::undefined(QUERN_TRY(reason.finish()).string);
}

Result<AttributePath> AttributePath::parse(Runtime& runtime, const Value& argument) {
  AttributePath path;
  if (!argument.given() || argument.is(Kind::kNone)) return path;
  if (argument.is(Kind::kString)) {
    path.keys_ = QUERN_TRY(path_keys(runtime, *argument.string));
  } else if (argument.is_integer()) {
    path.keys_ = {argument};
  } else {
    return template_error(
        fmt::format("an attribute is named by text or number, not '{}'", type_name(argument)));
  }
  return path;
}

Result<std::vector<AttributePath>> AttributePath::parse_list(Runtime& runtime,
                                                             const Value& argument) {
  std::vector<AttributePath> paths;
  if (!argument.is(Kind::kString)) {
    paths.push_back(QUERN_TRY(parse(runtime, argument)));
    return paths;
  }
  const Str& text = *argument.string;
  for (size_t begin = 0; begin <= text.bytes.size();) {
    const size_t comma = std::min(text.bytes.find(',', begin), text.bytes.size());
    paths.push_back(QUERN_TRY(parse(runtime, slice_bytes(runtime, text, begin, comma))));
    begin = comma + 1;
  }
  return paths;
}

Result<Value> AttributePath::get(Runtime& runtime, Value object, const Value& fallback) const {
  for (const Value& key : keys_) {
    QUERN_TRY(runtime.step());
    object = QUERN_TRY(get_item(runtime, object, key));
    const bool replaced = fallback.given() && !fallback.is(Kind::kNone);
    if (object.is(Kind::kUndefined) && replaced) object = fallback;
  }
  return object;
}

}  // namespace quern::jinja
