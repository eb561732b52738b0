#include <algorithm>

#include <fmt/format.h>

#include "text/jinja_attributes.h"
#include "text/jinja_interpreter.h"
#include "text/jinja_operators.h"
#include "text/jinja_repr.h"

namespace quern::jinja {

Result<Interpreter::Flow> Interpreter::execute(const Body& body) {
  for (const Stmt& stmt : body) {
    const Flow flow = QUERN_TRY(execute(stmt));
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Result<Interpreter::Flow> Interpreter::execute(const Stmt& stmt) {
  const Runtime::Nesting nesting(runtime_);
  QUERN_TRY(nesting.entered());
  QUERN_TRY(runtime_.step());
  Result<Flow> result = std::visit([&](const auto& node) { return run(node); }, stmt.node);
  if (!result) return located(std::move(result).error(), stmt.line);
  return result;
}

Result<Unit> Interpreter::check_output() const {
  if (out_->failed()) return runtime_.heap().limit_error();
  const auto size = static_cast<int64_t>(out_->size());
  if (size <= runtime_.limits().output_bytes) return Unit{};
  return template_error(
      fmt::format("the text is longer than its limit of {} bytes", runtime_.limits().output_bytes));
}

Result<Interpreter::Flow> Interpreter::run(const DataStmt& stmt) {
  QUERN_TRY(runtime_.read(stmt.text.size()));
  out_->append(stmt.text);
  QUERN_TRY(check_output());
  return Flow::kNext;
}

Result<Interpreter::Flow> Interpreter::run(const OutputStmt& stmt) {
  for (const ExprPtr& expr : stmt.values) {
    const Value value = QUERN_TRY(evaluate(*expr));
    QUERN_TRY(append_str(runtime_, *out_, value));
  }
  QUERN_TRY(check_output());
  return Flow::kNext;
}

Result<Interpreter::Flow> Interpreter::run(const IfStmt& stmt) {
  for (const auto& [condition, body] : stmt.branches) {
    if (truthy(QUERN_TRY(evaluate(*condition)))) return execute(body);
  }
  return execute(stmt.otherwise);
}

Result<Interpreter::Flow> Interpreter::run(const SetStmt& stmt) {
  const Value value = QUERN_TRY(evaluate(*stmt.value));
  QUERN_TRY(assign(stmt.target, value));
  return Flow::kNext;
}

Result<Unit> Interpreter::assign_attribute(const Target& target, const Value& value) {
  const std::string& name = template_.names[static_cast<size_t>(target.name)];
  const Binding* owner = QUERN_TRY(find(target.name));
  if (owner == nullptr || !owner->value.is(Kind::kNamespace)) {
    return template_error(
        fmt::format("cannot set '{}.{}': '{}' is no namespace", name, target.attribute, name));
  }
  const Value key = QUERN_TRY(runtime_.text(target.attribute));
  return set_key(runtime_, *owner->value.dict, key, value);
}

Result<Unit> Interpreter::assign(const Target& target, const Value& value) {
  if (!target.attribute.empty()) return assign_attribute(target, value);
  if (!target.is_tuple) return bind(target.name, value);
  const std::vector<Value> values = QUERN_TRY(elements(runtime_, value));
  if (values.size() != target.items.size()) {
    return template_error(
        fmt::format("cannot unpack {} values into {} names", values.size(), target.items.size()));
  }
  for (size_t i = 0; i < values.size(); ++i) QUERN_TRY(assign(target.items[i], values[i]));
  return Unit{};
}

Result<Value> Interpreter::capture(const Body& body, Flow& flow) {
  TextBuilder text(runtime_);
  TextBuilder* const outer = std::exchange(out_, &text);
  const Result<Flow> result = execute(body);
  out_ = outer;
  flow = QUERN_TRY(result);
  return text.finish();
}

Result<Interpreter::Flow> Interpreter::run(const SetBlockStmt& stmt) {
  Scope* const outer = std::exchange(scope_, inner_scope(scope_));
  Flow flow = Flow::kNext;
  const Result<Value> text = capture(stmt.body, flow);
  scope_ = outer;
  Value value = QUERN_TRY(text);
  if (flow != Flow::kNext) return flow;
  if (stmt.filter != nullptr) {
    block_text_ = value;
    value = QUERN_TRY(evaluate(*stmt.filter));
  }
  QUERN_TRY(assign(stmt.target, value));
  return Flow::kNext;
}

Result<Interpreter::Flow> Interpreter::run(const FilterStmt& stmt) {
  Scope* const outer = std::exchange(scope_, inner_scope(scope_));
  Flow flow = Flow::kNext;
  const Result<Value> text = capture(stmt.body, flow);
  if (text && flow == Flow::kNext) {
    block_text_ = *text;
    const Result<Value> filtered = evaluate(*stmt.filter);
    scope_ = outer;
    const Value value = QUERN_TRY(filtered);
    QUERN_TRY(append_str(runtime_, *out_, value));
    QUERN_TRY(check_output());
    return Flow::kNext;
  }
  scope_ = outer;
  QUERN_TRY(text);
  return flow;
}

Result<Interpreter::Flow> Interpreter::run(const WithStmt& stmt) {
  Scope* const outer = scope_;
  Scope* const inner = inner_scope(outer);
  for (const auto& [target, expr] : stmt.bindings) {
    const Value value = QUERN_TRY(evaluate(*expr));  // sees the outer scope
    scope_ = inner;
    const Result<Unit> assigned = assign(target, value);
    scope_ = outer;
    QUERN_TRY(assigned);
  }
  scope_ = inner;
  Result<Flow> flow = execute(stmt.body);
  scope_ = outer;
  return flow;
}

Value Interpreter::make_macro(const MacroStmt& definition) {
  ++scopes_kept_;
  Value value;
  value.kind = Kind::kMacro;
  value.macro = runtime_.heap().make(Macro{&definition, scope_});
  return value;
}

Result<Interpreter::Flow> Interpreter::run(const MacroStmt& stmt) {
  QUERN_TRY(bind(stmt.name, make_macro(stmt)));
  return Flow::kNext;
}

Result<Interpreter::Flow> Interpreter::run(const CallStmt& stmt) {
  const auto& expr = std::get<CallExpr>(stmt.call->node);
  const Value callee = QUERN_TRY(evaluate(*expr.callee));
  Evaluated arguments;
  QUERN_TRY(evaluate_arguments(expr.arguments, arguments));
  arguments.named.push_back({"caller", make_macro(stmt.caller)});
  const Value text = QUERN_TRY(call(callee, arguments));
  QUERN_TRY(append_str(runtime_, *out_, text));
  QUERN_TRY(check_output());
  return Flow::kNext;
}

Result<Loop*> Interpreter::make_loop(const ForStmt& stmt,
                                     Scope* scope,
                                     const Value& items,
                                     int64_t depth0) {
  Value walked = items;
  if (!items.is_sequence() || items.is(Kind::kIterator)) {
    const std::vector<Value> all = QUERN_TRY(elements(runtime_, items));
    walked = QUERN_TRY(runtime_.sequence(Kind::kList, all));
  }
  scopes_kept_ += stmt.recursive ? 1 : 0;
  Loop* loop = runtime_.heap().make(Loop{&stmt, scope, walked.sequence->items});
  loop->depth0 = depth0;
  if (stmt.condition == nullptr) loop->length = static_cast<int64_t>(loop->items.size());
  return loop;
}

Result<Interpreter::Flow> Interpreter::run(const ForStmt& stmt) {
  const Value items = QUERN_TRY(evaluate(*stmt.items));
  return run_loop(*QUERN_TRY(make_loop(stmt, scope_, items, 0)));
}

Result<Interpreter::Flow> Interpreter::run_once(Loop& loop, const Value& element) {
  if (loop.body_scope == nullptr) loop.body_scope = inner_scope(loop.scope);
  loop.body_scope->clear();
  const int64_t kept = scopes_kept_;
  Scope* const outer = std::exchange(scope_, loop.body_scope);
  Value self;
  self.kind = Kind::kLoop;
  self.loop = &loop;
  Result<Unit> bound = assign(loop.statement->target, element);
  if (bound && loop_name_ >= 0) bound = bind(loop_name_, self);
  Result<Flow> flow = bound ? execute(loop.statement->body) : Result<Flow>(bound.error());
  scope_ = outer;
  if (scopes_kept_ != kept) loop.body_scope = nullptr;
  return flow;
}

Result<Interpreter::Flow> Interpreter::run_loop(Loop& loop) {
  bool completed = false;  // an iteration ran to its end: what Jinja2 asks before it runs else
  for (;;) {
    const Value element = QUERN_TRY(take(loop));
    if (!element.given()) break;
    ++loop.index0;
    loop.previous = std::exchange(loop.current, element);
    const Flow flow = QUERN_TRY(run_once(loop, element));
    if (flow == Flow::kBreak) break;
    completed |= flow == Flow::kNext;
  }
  if (completed || loop.statement->otherwise.empty()) return Flow::kNext;
  Scope* const outer = std::exchange(scope_, inner_scope(loop.scope));
  Result<Flow> flow = execute(loop.statement->otherwise);
  scope_ = outer;
  return flow;
}

Result<Value> Interpreter::advance(Loop& loop) {
  const ForStmt& stmt = *loop.statement;
  while (loop.taken < loop.items.size()) {
    QUERN_TRY(runtime_.step());
    const Value element = loop.items[loop.taken++];
    if (loop.length >= 0) return element;  // all that is left meets the condition, if there is one
    if (loop.condition_scope == nullptr) loop.condition_scope = inner_scope(loop.scope);
    loop.condition_scope->clear();
    Scope* const outer = std::exchange(scope_, loop.condition_scope);
    const Result<Unit> bound = assign(stmt.target, element);
    const Result<Value> met = bound ? evaluate(*stmt.condition) : Result<Value>(bound.error());
    scope_ = outer;
    if (truthy(QUERN_TRY(met))) return element;
  }
  return Value{};
}

Result<Value> Interpreter::take(Loop& loop) {
  if (loop.next.given()) return std::exchange(loop.next, Value{});
  return advance(loop);
}

Result<Value> Interpreter::peek(Loop& loop) {
  if (!loop.next.given()) loop.next = QUERN_TRY(advance(loop));
  return loop.next;
}

Result<int64_t> Interpreter::loop_length(Loop& loop) {
  if (loop.length >= 0) return loop.length;
  std::vector<Value> rest;
  for (;;) {
    const Value element = QUERN_TRY(advance(loop));
    if (!element.given()) break;
    rest.push_back(element);
  }
  const Value copy = QUERN_TRY(runtime_.sequence(Kind::kList, rest));
  loop.items = copy.sequence->items;
  loop.taken = 0;
  loop.length = loop.index0 + 1 + (loop.next.given() ? 1 : 0) + static_cast<int64_t>(rest.size());
  return loop.length;
}

namespace {

Result<Value> loop_cycle(Runtime&, const Call& call) {
  if (call.args.size() < 2 || !call.named.empty()) {
    return template_error("cycle() takes the values to cycle through");
  }
  const auto values = call.args.subspan(1);
  return values[static_cast<size_t>(call.args[0].loop->index0) % values.size()];
}

Result<Value> loop_changed(Runtime& runtime, const Call& call) {
  if (!call.named.empty()) return template_error("changed() takes no arguments by name");
  Loop& loop = *call.args[0].loop;
  const auto rest = call.args.subspan(1);
  const Value now = QUERN_TRY(runtime.sequence(Kind::kTuple, {rest.begin(), rest.end()}));
  const bool same = loop.changed.given() && QUERN_TRY(equals(runtime, loop.changed, now));
  loop.changed = now;
  return Value::from(!same);
}

}  // namespace

Result<Value> Interpreter::loop_attribute(Loop& loop, std::string_view name) {
  Value self;
  self.kind = Kind::kLoop;
  self.loop = &loop;
  const auto method = [&](Builtin body) {
    Value value;
    value.kind = Kind::kMethod;
    value.method =
        runtime_.heap().make(Method{self, {name == "cycle" ? "cycle" : "changed", body}});
    return value;
  };
  if (name == "index0") return Value::from(loop.index0);
  if (name == "index") return Value::from(loop.index0 + 1);
  if (name == "first") return Value::from(loop.index0 == 0);
  if (name == "last") return Value::from(!QUERN_TRY(peek(loop)).given());
  if (name == "length") return Value::from(QUERN_TRY(loop_length(loop)));
  if (name == "revindex") return Value::from(QUERN_TRY(loop_length(loop)) - loop.index0);
  if (name == "revindex0") return Value::from(QUERN_TRY(loop_length(loop)) - loop.index0 - 1);
  if (name == "depth0") return Value::from(loop.depth0);
  if (name == "depth") return Value::from(loop.depth0 + 1);
  if (name == "cycle") return method(loop_cycle);
  if (name == "changed") return method(loop_changed);
  if (name == "previtem") {
    return loop.index0 > 0 ? loop.previous : runtime_.undefined("there is no previous item");
  }
  if (name == "nextitem") {
    const Value next = QUERN_TRY(peek(loop));
    return next.given() ? next : runtime_.undefined("there is no next item");
  }
  return runtime_.undefined(self, name);
}

}  // namespace quern::jinja
