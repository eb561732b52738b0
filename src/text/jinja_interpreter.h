// Runs a parsed template: evaluates its expressions and executes its statements.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja_ast.h"
#include "text/jinja_callables.h"
#include "text/jinja_runtime.h"
#include "text/jinja_text.h"

namespace quern::jinja {

// One rendering. Errors of all functions: kInvalidArgument naming the line of the template.
class Interpreter {
 public:
  // Borrows both for its lifetime.
  Interpreter(const Template& parsed, Runtime& runtime);

  // Gives a global name its value; names that the template does not mention are dropped.
  Result<Unit> define(std::string_view name, const Value& value);

  Result<std::vector<TemplateSegment>> run();

 private:
  enum class Flow { kNext, kBreak, kContinue };

  struct Evaluated {
    std::vector<Value> positional;
    std::vector<NamedValue> named;
  };

  // Statements: jinja_statements.cc.
  Result<Flow> execute(const Body& body);
  Result<Flow> execute(const Stmt& stmt);
  Result<Flow> run(const DataStmt& stmt);
  Result<Flow> run(const OutputStmt& stmt);
  Result<Flow> run(const ForStmt& stmt);
  Result<Flow> run(const IfStmt& stmt);
  Result<Flow> run(const SetStmt& stmt);
  Result<Flow> run(const SetBlockStmt& stmt);
  Result<Flow> run(const MacroStmt& stmt);
  Result<Flow> run(const CallStmt& stmt);
  Result<Flow> run(const FilterStmt& stmt);
  Result<Flow> run(const WithStmt& stmt);
  Result<Flow> run(const BreakStmt&) { return Flow::kBreak; }
  Result<Flow> run(const ContinueStmt&) { return Flow::kContinue; }

  // Walks the loop in the current scope. The flow is that of the else branch.
  Result<Flow> run_loop(Loop& loop);
  Result<Flow> run_once(Loop& loop, const Value& element);
  // The next element that meets the condition, kMissing at the end.
  Result<Value> advance(Loop& loop);
  Result<Value> take(Loop& loop);
  Result<Value> peek(Loop& loop);
  Result<int64_t> loop_length(Loop& loop);
  Result<Value> loop_attribute(Loop& loop, std::string_view name);
  Result<Loop*> make_loop(const ForStmt& stmt, Scope* scope, const Value& items, int64_t depth0);

  Result<Unit> assign(const Target& target, const Value& value);
  Result<Unit> assign_attribute(const Target& target, const Value& value);
  Result<Unit> check_output() const;

  // The text that a body writes. `flow` is how it ended.
  Result<Value> capture(const Body& body, Flow& flow);
  Value make_macro(const MacroStmt& definition);

  // Expressions: jinja_interpreter.cc.
  Result<Value> evaluate(const Expr& expr);
  Result<Value> evaluate_or_none(const ExprPtr& expr);
  Result<Value> value_of(const ConstantExpr& expr) { return expr.value; }
  Result<Value> value_of(const NameExpr& expr);
  Result<Value> value_of(const ListExpr& expr);
  Result<Value> value_of(const TupleExpr& expr);
  Result<Value> value_of(const DictExpr& expr);
  Result<Value> value_of(const SliceExpr& expr);
  Result<Value> value_of(const AttributeExpr& expr);
  Result<Value> value_of(const ItemExpr& expr);
  Result<Value> value_of(const CallExpr& expr);
  Result<Value> value_of(const FilterExpr& expr);
  Result<Value> value_of(const TestExpr& expr);
  Result<Value> value_of(const UnaryExpr& expr);
  Result<Value> value_of(const BinaryExpr& expr);
  Result<Value> value_of(const LogicExpr& expr);
  Result<Value> value_of(const ConcatExpr& expr);
  Result<Value> value_of(const CompareExpr& expr);
  Result<Value> value_of(const ConditionalExpr& expr);

  Result<Value> sequence_of(Kind kind, const std::vector<ExprPtr>& items);
  Result<Unit> evaluate_arguments(const Arguments& arguments, Evaluated& out);
  Result<Value> apply(const Function& function, const Value& subject, const Arguments& arguments);
  Result<Value> call(const Value& callee, const Evaluated& arguments);
  Result<Value> call_macro(const Macro& macro, const Evaluated& arguments);
  Result<Unit> bind_parameters(const Macro& macro, const Evaluated& arguments);
  Result<Unit> bind_rest(const Macro& macro, const Evaluated& arguments);
  Result<Value> call_loop(Loop& loop, const Evaluated& arguments);

  Scope* inner_scope(Scope* parent) { return runtime_.heap().make(Scope{parent}); }

  // Both cost steps by how many names there are.
  Result<Unit> bind(NameId name, const Value& value);
  Result<const Binding*> find(NameId name);

  // Adds the line to an error that has none yet.
  Error located(Error error, int32_t line);
  NameId id_of(const std::string& name) const;

  const Template& template_;
  Runtime& runtime_;
  Scope* scope_;
  TextBuilder* out_ = nullptr;
  int64_t scopes_kept_ = 0;  // how often a macro or loop kept the scope that it was made in
  Value block_text_;         // what a filter without subject is applied to
  bool located_ = false;
  NameId loop_name_, caller_name_, varargs_name_, kwargs_name_;
};

}  // namespace quern::jinja
