#include "text/jinja_runtime.h"

#include <algorithm>

#include <fmt/format.h>

#include "text/jinja_text.h"

namespace quern::jinja {

Error template_error(std::string message) {
  return Error{ErrorCode::kInvalidArgument, std::move(message)};
}

Result<Unit> Runtime::step(int64_t count) {
  steps_ += count;
  if (steps_ > limits_.steps) {
    return template_error(
        fmt::format("the rendering takes more than its limit of {} steps", limits_.steps));
  }
  if (heap_.exceeded()) return heap_.limit_error();
  return Unit{};
}

Result<Unit> Runtime::Nesting::entered() const {
  if (runtime_.depth_ <= runtime_.limits_.depth) return Unit{};
  return template_error(
      fmt::format("nested deeper than the limit of {} levels", runtime_.limits_.depth));
}

Result<Value> Runtime::text(std::string_view bytes) {
  const std::string_view copy = QUERN_TRY(heap_.copy(bytes));
  return Value::from(heap_.make(Str{copy, {}, code_points(copy)}));
}

Value Runtime::undefined(std::string_view reason) {
  return Value::undefined(heap_.make(Str{reason, {}, code_points(reason)}));
}

Result<Value> Runtime::undefined(const Value& owner, std::string_view name) {
  const std::string reason =
      fmt::format("'{} object' has no attribute '{}'", type_name(owner), name);
  return undefined(QUERN_TRY(heap_.copy(reason)));
}

Result<Value> Runtime::sequence(Kind kind, const std::vector<Value>& items, std::string_view name) {
  const std::span<Value> copy = QUERN_TRY(heap_.make_array<Value>(items.size()));
  std::copy(items.begin(), items.end(), copy.begin());
  return sequence_of(kind, copy, name);
}

Value Runtime::sequence_of(Kind kind, std::span<const Value> items, std::string_view name) {
  return Value::from(kind, heap_.make(Sequence{items, name}));
}

Result<Value> Runtime::tuple(std::initializer_list<Value> items) {
  return sequence(Kind::kTuple, std::vector<Value>(items));
}

Result<Unit> Call::bind_into(std::span<Value> bound,
                             std::span<const std::string_view> parameters,
                             size_t required) const {
  if (args.size() > bound.size()) {
    return template_error(fmt::format("{}() takes at most {} arguments, {} were given", name,
                                      bound.size(), args.size()));
  }
  std::copy(args.begin(), args.end(), bound.begin());
  for (const NamedValue& argument : named) {
    const auto found = std::find(parameters.begin(), parameters.end(), argument.name);
    if (found == parameters.end()) {
      return template_error(fmt::format("{}() has no argument named '{}'", name, argument.name));
    }
    Value& slot = bound[static_cast<size_t>(found - parameters.begin())];
    if (slot.given()) {
      return template_error(fmt::format("{}() got its argument '{}' twice", name, argument.name));
    }
    slot = argument.value;
  }
  for (size_t i = 0; i < required; ++i) {
    if (!bound[i].given()) {
      return template_error(fmt::format("{}() misses its argument {}", name, i + 1));
    }
  }
  return Unit{};
}

const Function* find_function(std::span<const Function> table, std::string_view name) {
  const auto found = std::find_if(table.begin(), table.end(),
                                  [&](const Function& entry) { return entry.name == name; });
  return found == table.end() ? nullptr : &*found;
}

Result<int64_t> integer_argument(const Call& call, const Value& value, int64_t fallback) {
  if (!value.given()) return fallback;
  if (value.is_integer()) return value.as_integer();
  return template_error(
      fmt::format("{}() takes an integer, not '{}'", call.name, type_name(value)));
}

}  // namespace quern::jinja
