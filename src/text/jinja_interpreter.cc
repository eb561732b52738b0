#include "text/jinja_interpreter.h"

#include <algorithm>

#include <fmt/format.h>

#include "text/jinja_attributes.h"
#include "text/jinja_functions.h"
#include "text/jinja_operators.h"
#include "text/jinja_repr.h"

namespace quern::jinja {

Interpreter::Interpreter(const Template& parsed, Runtime& runtime)
    : template_(parsed),
      runtime_(runtime),
      scope_(inner_scope(nullptr)),
      loop_name_(id_of("loop")),
      caller_name_(id_of("caller")),
      varargs_name_(id_of("varargs")),
      kwargs_name_(id_of("kwargs")) {}

NameId Interpreter::id_of(const std::string& name) const {
  const auto found = template_.name_ids.find(name);
  return found == template_.name_ids.end() ? -1 : found->second;
}

Result<Unit> Interpreter::define(std::string_view name, const Value& value) {
  const NameId id = id_of(std::string(name));
  if (id >= 0) QUERN_TRY(bind(id, value));
  return Unit{};
}

Result<std::vector<TemplateSegment>> Interpreter::run() {
  for (const Function& function : global_functions()) {
    Value value;
    value.kind = Kind::kFunction;
    value.function = &function;
    const NameId id = id_of(std::string(function.name));
    if (id >= 0 && QUERN_TRY(find(id)) == nullptr) QUERN_TRY(bind(id, value));
  }
  TextBuilder out(runtime_);
  out_ = &out;
  QUERN_TRY(execute(template_.body));
  return out.segments();
}

Result<Unit> Interpreter::bind(NameId name, const Value& value) {
  QUERN_TRY(runtime_.step(static_cast<int64_t>(scope_->bindings.size() / 16)));
  return scope_->bind(runtime_.heap(), name, value);
}

Result<const Binding*> Interpreter::find(NameId name) {
  int64_t looked_at = 0;
  const Binding* found = scope_->find(name, looked_at);
  QUERN_TRY(runtime_.step(looked_at / 16));
  return found;
}

Error Interpreter::located(Error error, int32_t line) {
  if (!located_) error.message = fmt::format("chat template line {}: {}", line, error.message);
  located_ = true;
  return error;
}

Result<Value> Interpreter::evaluate(const Expr& expr) {
  const Runtime::Nesting nesting(runtime_);
  QUERN_TRY(nesting.entered());
  QUERN_TRY(runtime_.step());
  Result<Value> result = std::visit([&](const auto& node) { return value_of(node); }, expr.node);
  if (!result) return located(std::move(result).error(), expr.line);
  return result;
}

Result<Value> Interpreter::evaluate_or_none(const ExprPtr& expr) {
  if (expr == nullptr) return Value::none();
  return evaluate(*expr);
}

Result<Value> Interpreter::value_of(const NameExpr& expr) {
  const Binding* binding = QUERN_TRY(find(expr.name));
  if (binding != nullptr) return binding->value;
  const std::string reason =
      fmt::format("'{}' is undefined", template_.names[static_cast<size_t>(expr.name)]);
  return runtime_.undefined(QUERN_TRY(runtime_.heap().copy(reason)));
}

Result<Value> Interpreter::sequence_of(Kind kind, const std::vector<ExprPtr>& items) {
  const auto values = QUERN_TRY(runtime_.heap().make_array<Value>(items.size()));
  for (size_t i = 0; i < items.size(); ++i) values[i] = QUERN_TRY(evaluate(*items[i]));
  return runtime_.sequence_of(kind, values);
}

Result<Value> Interpreter::value_of(const ListExpr& expr) {
  return sequence_of(Kind::kList, expr.items);
}

Result<Value> Interpreter::value_of(const TupleExpr& expr) {
  return sequence_of(Kind::kTuple, expr.items);
}

Result<Value> Interpreter::value_of(const DictExpr& expr) {
  Dict* dict = runtime_.heap().make(Dict{});
  for (const auto& [key, value] : expr.pairs) {
    const Value new_key = QUERN_TRY(evaluate(*key));
    const Value new_value = QUERN_TRY(evaluate(*value));
    QUERN_TRY(set_key(runtime_, *dict, new_key, new_value));
  }
  return Value::from(Kind::kDict, dict);
}

Result<Value> Interpreter::value_of(const SliceExpr& expr) {
  Slice slice;
  slice.start = QUERN_TRY(evaluate_or_none(expr.start));
  slice.stop = QUERN_TRY(evaluate_or_none(expr.stop));
  slice.step = QUERN_TRY(evaluate_or_none(expr.step));
  Value value;
  value.kind = Kind::kSlice;
  value.slice = runtime_.heap().make(slice);
  return value;
}

Result<Value> Interpreter::value_of(const AttributeExpr& expr) {
  const Value object = QUERN_TRY(evaluate(*expr.object));
  if (object.is(Kind::kLoop)) return loop_attribute(*object.loop, expr.name);
  return get_attribute(runtime_, object, expr.name);
}

Result<Value> Interpreter::value_of(const ItemExpr& expr) {
  const Value object = QUERN_TRY(evaluate(*expr.object));
  const Value key = QUERN_TRY(evaluate(*expr.key));
  if (object.is(Kind::kLoop) && key.is(Kind::kString)) {
    return loop_attribute(*object.loop, key.string->bytes);
  }
  return get_item(runtime_, object, key);
}

Result<Unit> Interpreter::evaluate_arguments(const Arguments& arguments, Evaluated& out) {
  for (const ExprPtr& argument : arguments.positional) {
    out.positional.push_back(QUERN_TRY(evaluate(*argument)));
  }
  for (const auto& [name, argument] : arguments.named) {
    out.named.push_back({name, QUERN_TRY(evaluate(*argument))});
  }
  if (arguments.star != nullptr) {
    const Value star = QUERN_TRY(evaluate(*arguments.star));
    const std::vector<Value> rest = QUERN_TRY(elements(runtime_, star));
    out.positional.insert(out.positional.end(), rest.begin(), rest.end());
  }
  if (arguments.double_star != nullptr) {
    const Value names = QUERN_TRY(evaluate(*arguments.double_star));
    if (!names.is(Kind::kDict)) return template_error("** takes a mapping");
    for (const Pair& pair : names.dict->pairs) {
      if (!pair.key.is(Kind::kString))
        return template_error("** takes a mapping with names as keys");
      out.named.push_back({pair.key.string->bytes, pair.value});
    }
  }
  return Unit{};
}

Result<Value> Interpreter::value_of(const CallExpr& expr) {
  const Value callee = QUERN_TRY(evaluate(*expr.callee));
  Evaluated arguments;
  QUERN_TRY(evaluate_arguments(expr.arguments, arguments));
  return call(callee, arguments);
}

Result<Value> Interpreter::call(const Value& callee, const Evaluated& arguments) {
  switch (callee.kind) {
    case Kind::kUndefined:
      return template_error(std::string(callee.string->bytes));
    case Kind::kMacro:
      return call_macro(*callee.macro, arguments);
    case Kind::kLoop:
      return call_loop(*callee.loop, arguments);
    case Kind::kJoiner:
      return call_joiner(runtime_, *callee.joiner);
    case Kind::kFunction:
      return callee.function->body(
          runtime_, Call{callee.function->name, arguments.positional, arguments.named});
    case Kind::kMethod: {
      const Method& method = *callee.method;
      std::vector<Value> all{method.self};
      all.insert(all.end(), arguments.positional.begin(), arguments.positional.end());
      return method.function.body(runtime_, Call{method.function.name, all, arguments.named});
    }
    default:
      return template_error(fmt::format("'{}' cannot be called", type_name(callee)));
  }
}

Result<Value> Interpreter::call_loop(Loop& loop, const Evaluated& arguments) {
  if (!loop.statement->recursive) {
    return template_error("only a loop that is marked recursive can be called");
  }
  if (arguments.positional.size() != 1 || !arguments.named.empty()) {
    return template_error("loop() takes the elements to walk over");
  }
  const Value& items = arguments.positional.front();
  Loop* inner = QUERN_TRY(make_loop(*loop.statement, loop.scope, items, loop.depth0 + 1));
  TextBuilder text(runtime_);
  TextBuilder* const outer_text = std::exchange(out_, &text);
  Scope* const outer_scope = std::exchange(scope_, loop.scope);
  const Result<Flow> flow = run_loop(*inner);
  scope_ = outer_scope;
  out_ = outer_text;
  if (!flow) return flow.error();
  return text.finish();
}

Result<Value> Interpreter::call_macro(const Macro& macro, const Evaluated& arguments) {
  Scope* const outer = std::exchange(scope_, inner_scope(macro.scope));
  const Result<Unit> bound = bind_parameters(macro, arguments);
  Flow flow = Flow::kNext;
  Result<Value> result =
      bound ? capture(macro.definition->body, flow) : Result<Value>(bound.error());
  scope_ = outer;
  return result;
}

Result<Unit> Interpreter::bind_parameters(const Macro& macro, const Evaluated& arguments) {
  const MacroStmt& definition = *macro.definition;
  for (size_t i = 0; i < definition.parameters.size(); ++i) {
    const Parameter& parameter = definition.parameters[i];
    const std::string& name = template_.names[static_cast<size_t>(parameter.name)];
    Value value;
    if (i < arguments.positional.size()) {
      value = arguments.positional[i];
    } else {
      const auto named = std::find_if(arguments.named.begin(), arguments.named.end(),
                                      [&](const NamedValue& n) { return n.name == name; });
      if (named != arguments.named.end()) {
        value = named->value;
      } else if (parameter.fallback != nullptr) {
        value = QUERN_TRY(evaluate(*parameter.fallback));
      } else {
        const std::string reason = fmt::format("parameter '{}' was not provided", name);
        value = runtime_.undefined(QUERN_TRY(runtime_.heap().copy(reason)));
      }
    }
    QUERN_TRY(bind(parameter.name, value));
  }
  return bind_rest(macro, arguments);
}

// What the parameters did not take: caller, varargs and kwargs, for macros that mention them.
Result<Unit> Interpreter::bind_rest(const Macro& macro, const Evaluated& arguments) {
  const MacroStmt& definition = *macro.definition;
  const size_t count = definition.parameters.size();
  Value caller = runtime_.undefined("No caller defined");
  Dict* kwargs = runtime_.heap().make(Dict{});
  for (const NamedValue& argument : arguments.named) {
    size_t at = 0;
    while (at < count &&
           template_.names[static_cast<size_t>(definition.parameters[at].name)] != argument.name)
      ++at;
    if (at < count && at >= arguments.positional.size()) continue;
    if (argument.name == "caller" && definition.takes_caller) {
      caller = argument.value;
    } else if (definition.takes_kwargs) {
      const Value key = QUERN_TRY(runtime_.text(argument.name));
      QUERN_TRY(set_key(runtime_, *kwargs, key, argument.value));
    } else {
      return template_error(
          fmt::format("macro '{}' takes no argument named '{}'", macro.name(), argument.name));
    }
  }
  const std::span<const Value> rest =
      std::span(arguments.positional).subspan(std::min(count, arguments.positional.size()));
  if (!rest.empty() && !definition.takes_varargs) {
    return template_error(fmt::format("macro '{}' takes at most {} arguments, {} were given",
                                      macro.name(), count, arguments.positional.size()));
  }
  const auto is_parameter = [&](NameId name) {
    return std::any_of(definition.parameters.begin(), definition.parameters.end(),
                       [&](const Parameter& p) { return p.name == name; });
  };
  if (definition.takes_caller && !is_parameter(caller_name_)) QUERN_TRY(bind(caller_name_, caller));
  if (definition.takes_kwargs && !is_parameter(kwargs_name_)) {
    QUERN_TRY(bind(kwargs_name_, Value::from(Kind::kDict, kwargs)));
  }
  if (definition.takes_varargs && !is_parameter(varargs_name_)) {
    const Value varargs = QUERN_TRY(runtime_.sequence(Kind::kTuple, {rest.begin(), rest.end()}));
    QUERN_TRY(bind(varargs_name_, varargs));
  }
  return Unit{};
}

Result<Value> Interpreter::apply(const Function& function,
                                 const Value& subject,
                                 const Arguments& arguments) {
  Evaluated evaluated;
  evaluated.positional.push_back(subject);
  QUERN_TRY(evaluate_arguments(arguments, evaluated));
  return function.body(runtime_, Call{function.name, evaluated.positional, evaluated.named});
}

Result<Value> Interpreter::value_of(const FilterExpr& expr) {
  if (expr.filter == nullptr) {
    return template_error(fmt::format("no filter is named '{}'", expr.name));
  }
  const Value subject = expr.subject == nullptr ? block_text_ : QUERN_TRY(evaluate(*expr.subject));
  return apply(*expr.filter, subject, expr.arguments);
}

Result<Value> Interpreter::value_of(const TestExpr& expr) {
  if (expr.test == nullptr) {
    return template_error(fmt::format("no test is named '{}'", expr.name));
  }
  return apply(*expr.test, QUERN_TRY(evaluate(*expr.subject)), expr.arguments);
}

Result<Value> Interpreter::value_of(const UnaryExpr& expr) {
  const Value operand = QUERN_TRY(evaluate(*expr.operand));
  if (expr.op == UnaryOp::kNot) return Value::from(!truthy(operand));
  return negative(runtime_, operand, expr.op);
}

Result<Value> Interpreter::value_of(const BinaryExpr& expr) {
  const Value left = QUERN_TRY(evaluate(*expr.left));
  return binary(runtime_, expr.op, left, QUERN_TRY(evaluate(*expr.right)));
}

Result<Value> Interpreter::value_of(const LogicExpr& expr) {
  const Value left = QUERN_TRY(evaluate(*expr.left));
  if (truthy(left) != expr.is_and) return left;
  return evaluate(*expr.right);
}

Result<Value> Interpreter::value_of(const ConcatExpr& expr) {
  std::vector<Value> parts;
  for (const ExprPtr& part : expr.parts) parts.push_back(QUERN_TRY(evaluate(*part)));
  TextBuilder text(runtime_);
  for (const Value& part : parts) QUERN_TRY(append_str(runtime_, text, part));
  return text.finish();
}

Result<Value> Interpreter::value_of(const CompareExpr& expr) {
  Value left = QUERN_TRY(evaluate(*expr.first));
  for (const auto& [op, operand] : expr.rest) {
    const Value right = QUERN_TRY(evaluate(*operand));
    if (!QUERN_TRY(compare(runtime_, op, left, right))) return Value::from(false);
    left = right;
  }
  return Value::from(true);
}

Result<Value> Interpreter::value_of(const ConditionalExpr& expr) {
  if (truthy(QUERN_TRY(evaluate(*expr.condition)))) return evaluate(*expr.then);
  if (expr.otherwise != nullptr) return evaluate(*expr.otherwise);
  return runtime_.undefined("the inline if has no else and its condition is false");
}

}  // namespace quern::jinja
