#include "text/jinja_functions.h"

#include <fmt/format.h>

#include "text/jinja_operators.h"
#include "text/jinja_repr.h"
#include "text/jinja_strftime.h"
#include "text/jinja_text.h"

namespace quern::jinja {
namespace {

__extension__ using Wide = __int128;  // holds every difference of two int64_t

Result<Value> function_range(Runtime& runtime, const Call& call) {
  const auto a = QUERN_TRY(call.bind({"", "", ""}, 1));
  int64_t start = 0;
  int64_t stop = QUERN_TRY(integer_argument(call, a[0], 0));
  if (a[1].given()) {
    start = stop;
    stop = QUERN_TRY(integer_argument(call, a[1], 0));
  }
  const int64_t step = QUERN_TRY(integer_argument(call, a[2], 1));
  if (step == 0) return template_error("range(): the step cannot be zero");
  Wide count = 0;
  if (step > 0 && start < stop) count = (static_cast<Wide>(stop) - start + step - 1) / step;
  if (step < 0 && start > stop)
    count = (static_cast<Wide>(start) - stop - step - 1) / -static_cast<Wide>(step);
  if (count > runtime.limits().range_size) {
    return template_error(
        fmt::format("range() has more than its limit of {} elements", runtime.limits().range_size));
  }
  const auto size = static_cast<size_t>(count);
  QUERN_TRY(runtime.step(static_cast<int64_t>(size)));
  const auto items = QUERN_TRY(runtime.heap().make_array<Value>(size));
  for (size_t i = 0; i < size; ++i) {
    items[i] = Value::from(
        static_cast<int64_t>(start + static_cast<Wide>(step) * static_cast<int64_t>(i)));
  }
  return runtime.sequence_of(Kind::kRange, items);
}

// dict(mapping or pairs, name=value...), also what namespace() starts from.
Result<Dict*> make_dict(Runtime& runtime, const Call& call) {
  Dict* dict = runtime.heap().make(Dict{});
  if (call.args.size() > 1) {
    return template_error(fmt::format("{}() takes at most one positional argument", call.name));
  }
  if (!call.args.empty() && call.args[0].is(Kind::kDict)) {
    for (const Pair& pair : call.args[0].dict->pairs) {
      QUERN_TRY(set_key(runtime, *dict, pair.key, pair.value));
    }
  } else if (!call.args.empty()) {
    for (const Value& entry : QUERN_TRY(elements(runtime, call.args[0]))) {
      const std::vector<Value> pair = QUERN_TRY(elements(runtime, entry));
      if (pair.size() != 2) {
        return template_error(fmt::format("{}() takes pairs of key and value", call.name));
      }
      QUERN_TRY(set_key(runtime, *dict, pair[0], pair[1]));
    }
  }
  for (const NamedValue& argument : call.named) {
    const Value key = QUERN_TRY(runtime.text(argument.name));
    QUERN_TRY(set_key(runtime, *dict, key, argument.value));
  }
  return dict;
}

Result<Value> function_dict(Runtime& runtime, const Call& call) {
  return Value::from(Kind::kDict, QUERN_TRY(make_dict(runtime, call)));
}

Result<Value> function_namespace(Runtime& runtime, const Call& call) {
  return Value::from(Kind::kNamespace, QUERN_TRY(make_dict(runtime, call)));
}

Result<Value> function_raise_exception(Runtime& runtime, const Call& call) {
  const auto a = QUERN_TRY(call.bind({"message"}, 1));
  const Value text = QUERN_TRY(to_str(runtime, a[0]));
  return template_error(fmt::format("the template refuses: {}", text.string->bytes));
}

Result<Value> function_strftime_now(Runtime& runtime, const Call& call) {
  const auto a = QUERN_TRY(call.bind({"format"}, 1));
  if (!a[0].is(Kind::kString)) return template_error("strftime_now() takes a text");
  QUERN_TRY(runtime.step(a[0].string->length));
  TextBuilder out(runtime);
  QUERN_TRY(append_time(out, *a[0].string, runtime.now()));
  return out.finish();
}

Result<Value> function_cycler(Runtime& runtime, const Call& call) {
  if (call.args.empty() || !call.named.empty()) {
    return template_error("cycler() takes the values to cycle through");
  }
  const Value items =
      QUERN_TRY(runtime.sequence(Kind::kTuple, {call.args.begin(), call.args.end()}));
  Value value;
  value.kind = Kind::kCycler;
  value.cycler = runtime.heap().make(Cycler{items.sequence->items});
  return value;
}

Result<Value> cycler_next(Runtime&, const Call& call) {
  QUERN_TRY(call.bind({""}, 1));
  Cycler& cycler = *call.args[0].cycler;
  const Value result = cycler.items[static_cast<size_t>(cycler.position)];
  cycler.position = (cycler.position + 1) % static_cast<int64_t>(cycler.items.size());
  return result;
}

Result<Value> cycler_reset(Runtime&, const Call& call) {
  QUERN_TRY(call.bind({""}, 1));
  call.args[0].cycler->position = 0;
  return Value::none();
}

Result<Value> function_joiner(Runtime& runtime, const Call& call) {
  const auto a = QUERN_TRY(call.bind({"sep"}, 0));
  Value value;
  value.kind = Kind::kJoiner;
  value.joiner = runtime.heap().make(Joiner{a[0].given() ? a[0] : QUERN_TRY(runtime.text(", "))});
  return value;
}

constexpr Function kGlobals[] = {
    {"cycler", function_cycler},
    {"dict", function_dict},
    {"joiner", function_joiner},
    {"namespace", function_namespace},
    {"raise_exception", function_raise_exception},
    {"range", function_range},
    {"strftime_now", function_strftime_now},
};

constexpr Function kCyclerMethods[] = {{"next", cycler_next}, {"reset", cycler_reset}};

}  // namespace

std::span<const Function> global_functions() { return kGlobals; }

const Function* find_cycler_method(std::string_view name) {
  return find_function(kCyclerMethods, name);
}

Value call_joiner(Runtime& runtime, Joiner& joiner) {
  if (joiner.calls++ == 0) return Value::from(runtime.heap().make(Str{}));
  return joiner.separator;
}

}  // namespace quern::jinja
