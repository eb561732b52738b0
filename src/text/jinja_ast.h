// The parsed template: expressions and statements as plain data.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "text/jinja_runtime.h"

namespace quern::jinja {

struct Expr;
struct Stmt;
using ExprPtr = std::unique_ptr<const Expr>;
using Body = std::vector<Stmt>;
using NameId = int32_t;  // index into Template::names

struct ConstantExpr {
  Value value;  // strings borrow from `text`
  std::string text;
  Str string;
};

struct NameExpr {
  NameId name;
};

struct ListExpr {
  std::vector<ExprPtr> items;
};

struct TupleExpr {
  std::vector<ExprPtr> items;
};

struct DictExpr {
  std::vector<std::pair<ExprPtr, ExprPtr>> pairs;
};

struct SliceExpr {
  ExprPtr start, stop, step;  // each may be null
};

struct AttributeExpr {  // object.name
  ExprPtr object;
  std::string name;
};

struct ItemExpr {  // object[key]
  ExprPtr object;
  ExprPtr key;
};

struct Arguments {
  std::vector<ExprPtr> positional;
  std::vector<std::pair<std::string, ExprPtr>> named;
  ExprPtr star;         // *args, may be null
  ExprPtr double_star;  // **kwargs, may be null
};

struct CallExpr {
  ExprPtr callee;
  Arguments arguments;
};

struct FilterExpr {
  ExprPtr subject;  // null in a filter block or block set: the block's text
  std::string name;
  const Function*
      filter;  // null when there is none of that name: an error only where it is reached
  Arguments arguments;
};

struct TestExpr {
  ExprPtr subject;
  std::string name;
  const Function* test;  // as FilterExpr::filter
  Arguments arguments;
};

enum class UnaryOp : uint8_t { kNot, kNegative, kPositive };

struct UnaryExpr {
  UnaryOp op;
  ExprPtr operand;
};

enum class BinaryOp : uint8_t { kAdd, kSub, kMul, kDiv, kFloorDiv, kMod, kPow };

struct BinaryExpr {
  BinaryOp op;
  ExprPtr left, right;
};

struct LogicExpr {  // and, or: yields one of the operands
  bool is_and;
  ExprPtr left, right;
};

struct ConcatExpr {  // a ~ b ~ c
  std::vector<ExprPtr> parts;
};

enum class CompareOp : uint8_t { kEq, kNe, kLt, kLe, kGt, kGe, kIn, kNotIn };

struct CompareExpr {
  ExprPtr first;
  std::vector<std::pair<CompareOp, ExprPtr>> rest;
};

struct ConditionalExpr {
  ExprPtr condition, then;
  ExprPtr otherwise;  // may be null
};

struct Expr {
  int32_t line = 1;
  int32_t height = 1;  // levels of the tree below, itself included
  std::variant<ConstantExpr,
               NameExpr,
               ListExpr,
               TupleExpr,
               DictExpr,
               SliceExpr,
               AttributeExpr,
               ItemExpr,
               CallExpr,
               FilterExpr,
               TestExpr,
               UnaryExpr,
               BinaryExpr,
               LogicExpr,
               ConcatExpr,
               CompareExpr,
               ConditionalExpr>
      node;
};

// What `set` and `for` assign to: a name, an attribute of a namespace, or a tuple of targets.
struct Target {
  NameId name = -1;
  std::string attribute;      // not empty: namespace `name` gets it
  std::vector<Target> items;  // not empty or is_tuple: unpacks
  bool is_tuple = false;
};

struct Parameter {
  NameId name;
  ExprPtr fallback;  // null: undefined when not given
};

struct DataStmt {
  std::string text;
};

struct OutputStmt {
  std::vector<ExprPtr> values;
};

struct ForStmt {
  Target target;
  ExprPtr items;
  ExprPtr condition;  // may be null
  bool recursive = false;
  Body body;
  Body otherwise;
};

struct IfStmt {
  std::vector<std::pair<ExprPtr, Body>> branches;
  Body otherwise;
};

struct SetStmt {
  Target target;
  ExprPtr value;
};

struct SetBlockStmt {
  Target target;
  ExprPtr filter;  // chain of FilterExpr, may be null
  Body body;
};

struct MacroStmt {
  NameId name = -1;
  std::string shown_name;
  std::vector<Parameter> parameters;
  Body body;
  bool takes_caller = false;  // the body mentions caller, varargs or kwargs
  bool takes_varargs = false;
  bool takes_kwargs = false;
};

struct CallStmt {
  MacroStmt caller;
  ExprPtr call;
};

struct FilterStmt {
  ExprPtr filter;
  Body body;
};

struct WithStmt {
  std::vector<std::pair<Target, ExprPtr>> bindings;
  Body body;
};

struct BreakStmt {};

struct ContinueStmt {};

struct Stmt {
  int32_t line = 1;
  std::variant<DataStmt,
               OutputStmt,
               ForStmt,
               IfStmt,
               SetStmt,
               SetBlockStmt,
               MacroStmt,
               CallStmt,
               FilterStmt,
               WithStmt,
               BreakStmt,
               ContinueStmt>
      node;
};

struct Template {
  Body body;
  std::vector<std::string> names;
  std::unordered_map<std::string, NameId> name_ids;
};

}  // namespace quern::jinja
