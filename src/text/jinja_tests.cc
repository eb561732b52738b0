#include "text/jinja_tests.h"

#include "text/jinja_case.h"
#include "text/jinja_filters.h"
#include "text/jinja_operators.h"
#include "text/jinja_repr.h"

namespace quern::jinja {
namespace {

template <bool (*predicate)(const Value&)>
Result<Value> of_value(Runtime&, const Call& call) {
  QUERN_TRY(call.bind({"value"}, 1));
  return Value::from(predicate(call.args[0]));
}

template <CompareOp op>
Result<Value> comparing(Runtime& runtime, const Call& call) {
  const auto a = QUERN_TRY(call.bind({"", ""}, 2));
  return Value::from(QUERN_TRY(compare(runtime, op, a[0], a[1])));
}

bool defined(const Value& v) { return !v.is(Kind::kUndefined); }
bool undefined(const Value& v) { return v.is(Kind::kUndefined); }
bool none(const Value& v) { return v.is(Kind::kNone); }
bool boolean(const Value& v) { return v.is(Kind::kBool); }
bool is_true(const Value& v) { return v.is(Kind::kBool) && v.boolean; }
bool is_false(const Value& v) { return v.is(Kind::kBool) && !v.boolean; }
bool integer(const Value& v) { return v.is(Kind::kInt); }
bool real(const Value& v) { return v.is(Kind::kFloat); }
bool number(const Value& v) { return v.is_number(); }
bool string(const Value& v) { return v.is(Kind::kString); }
bool mapping(const Value& v) { return v.is(Kind::kDict); }
bool escaped(const Value&) { return false; }

// Anything with a length and subscripts: mappings count, as Jinja2 has it.
bool sequence(const Value& v) {
  return v.is(Kind::kString) || v.is(Kind::kList) || v.is(Kind::kTuple) || v.is(Kind::kRange) ||
         v.is(Kind::kDict) || v.is(Kind::kUndefined);
}

Result<Value> remainder_of(Runtime& runtime, const Value& value, int64_t divisor) {
  return binary(runtime, BinaryOp::kMod, value, Value::from(divisor));
}

Result<Value> test_odd(Runtime& runtime, const Call& call) {
  QUERN_TRY(call.bind({"value"}, 1));
  const Value rest = QUERN_TRY(remainder_of(runtime, call.args[0], 2));
  return Value::from(QUERN_TRY(equals(runtime, rest, Value::from(int64_t{1}))));
}

Result<Value> test_even(Runtime& runtime, const Call& call) {
  QUERN_TRY(call.bind({"value"}, 1));
  const Value rest = QUERN_TRY(remainder_of(runtime, call.args[0], 2));
  return Value::from(QUERN_TRY(equals(runtime, rest, Value::from(int64_t{0}))));
}

Result<Value> test_divisibleby(Runtime& runtime, const Call& call) {
  const auto a = QUERN_TRY(call.bind({"value", "num"}, 2));
  const Value rest = QUERN_TRY(binary(runtime, BinaryOp::kMod, a[0], a[1]));
  return Value::from(QUERN_TRY(equals(runtime, rest, Value::from(int64_t{0}))));
}

Result<Value> test_sameas(Runtime&, const Call& call) {
  const auto a = QUERN_TRY(call.bind({"value", "other"}, 2));
  return Value::from(identical(a[0], a[1]));
}

Result<Value> test_lower(Runtime& runtime, const Call& call) {
  QUERN_TRY(call.bind({"value"}, 1));
  return Value::from(is_lower(*QUERN_TRY(to_str(runtime, call.args[0])).string));
}

Result<Value> test_upper(Runtime& runtime, const Call& call) {
  QUERN_TRY(call.bind({"value"}, 1));
  return Value::from(is_upper(*QUERN_TRY(to_str(runtime, call.args[0])).string));
}

Result<Value> test_filter(Runtime&, const Call& call) {
  QUERN_TRY(call.bind({"value"}, 1));
  const Value& name = call.args[0];
  return Value::from(name.is(Kind::kString) && find_filter(name.string->bytes) != nullptr);
}

Result<Value> test_test(Runtime&, const Call& call) {
  QUERN_TRY(call.bind({"value"}, 1));
  const Value& name = call.args[0];
  return Value::from(name.is(Kind::kString) && find_test(name.string->bytes) != nullptr);
}

constexpr Function kTests[] = {
    {"!=", comparing<CompareOp::kNe>},
    {"<", comparing<CompareOp::kLt>},
    {"<=", comparing<CompareOp::kLe>},
    {"==", comparing<CompareOp::kEq>},
    {">", comparing<CompareOp::kGt>},
    {">=", comparing<CompareOp::kGe>},
    {"boolean", of_value<boolean>},
    {"callable", of_value<is_callable>},
    {"defined", of_value<defined>},
    {"divisibleby", test_divisibleby},
    {"eq", comparing<CompareOp::kEq>},
    {"equalto", comparing<CompareOp::kEq>},
    {"escaped", of_value<escaped>},
    {"even", test_even},
    {"false", of_value<is_false>},
    {"filter", test_filter},
    {"float", of_value<real>},
    {"ge", comparing<CompareOp::kGe>},
    {"greaterthan", comparing<CompareOp::kGt>},
    {"gt", comparing<CompareOp::kGt>},
    {"in", comparing<CompareOp::kIn>},
    {"integer", of_value<integer>},
    {"iterable", of_value<is_iterable>},
    {"le", comparing<CompareOp::kLe>},
    {"lessthan", comparing<CompareOp::kLt>},
    {"lower", test_lower},
    {"lt", comparing<CompareOp::kLt>},
    {"mapping", of_value<mapping>},
    {"ne", comparing<CompareOp::kNe>},
    {"none", of_value<none>},
    {"number", of_value<number>},
    {"odd", test_odd},
    {"sameas", test_sameas},
    {"sequence", of_value<sequence>},
    {"string", of_value<string>},
    {"test", test_test},
    {"true", of_value<is_true>},
    {"undefined", of_value<undefined>},
    {"upper", test_upper},
};

}  // namespace

bool is_callable(const Value& value) {
  switch (value.kind) {
    case Kind::kMacro:
    case Kind::kFunction:
    case Kind::kMethod:
    case Kind::kLoop:
    case Kind::kUndefined:  // Jinja2's class has __call__, if only to fail
    case Kind::kJoiner:
      return true;
    default:
      return false;
  }
}

const Function* find_test(std::string_view name) { return find_function(kTests, name); }

}  // namespace quern::jinja
