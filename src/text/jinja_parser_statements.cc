#include <algorithm>

#include <fmt/format.h>

#include "text/jinja_parser.h"

namespace quern::jinja {

Result<std::unique_ptr<const Template>> parse_template(std::string_view source) {
  std::vector<Token> tokens = QUERN_TRY(tokenize(source));
  return Parser(source, std::move(tokens)).run();
}

Result<std::unique_ptr<const Template>> Parser::run() {
  parsed_->body = QUERN_TRY(body({}));
  return std::unique_ptr<const Template>(std::move(parsed_));
}

bool Parser::skip_name(std::string_view name) {
  if (!current().is_name(name)) return false;
  next();
  return true;
}

bool Parser::skip_operator(std::string_view op) {
  if (!current().is_operator(op)) return false;
  next();
  return true;
}

bool Parser::at_any(Names names) const {
  return std::any_of(names.begin(), names.end(),
                     [&](std::string_view name) { return current().is_name(name); });
}

Error Parser::unexpected(std::string_view wanted) const {
  const Token& token = current();
  std::string found;
  switch (token.kind) {
    case TokenKind::kData:
      found = "text";
      break;
    case TokenKind::kVariableBegin:
      found = "'{{'";
      break;
    case TokenKind::kVariableEnd:
      found = "'}}'";
      break;
    case TokenKind::kBlockBegin:
      found = "'{%'";
      break;
    case TokenKind::kBlockEnd:
      found = "'%}'";
      break;
    case TokenKind::kString:
      found = "a string";
      break;
    case TokenKind::kInteger:
    case TokenKind::kFloat:
      found = "a number";
      break;
    case TokenKind::kEnd:
      found = "the end of the template";
      break;
    case TokenKind::kName:
    case TokenKind::kOperator:
      found = "'" + token.text + "'";
      break;
  }
  return fail(fmt::format("expected {}, found {}", wanted, found));
}

Result<Unit> Parser::expect_operator(std::string_view op) {
  if (skip_operator(op)) return Unit{};
  return unexpected(fmt::format("'{}'", op));
}

Result<Unit> Parser::expect(TokenKind kind, std::string_view shown) {
  if (!current().is(kind)) return unexpected(shown);
  next();
  return Unit{};
}

Result<std::string> Parser::expect_name() {
  if (!current().is(TokenKind::kName)) return unexpected("a name");
  return next().text;
}

NameId Parser::name_id(const std::string& name) {
  const auto [found, added] =
      parsed_->name_ids.emplace(name, static_cast<NameId>(parsed_->names.size()));
  if (added) parsed_->names.push_back(name);
  return found->second;
}

Result<Body> Parser::body(Names ends) {
  const Level level(depth_);
  QUERN_TRY(check_depth());
  Body result;
  while (!current().is(TokenKind::kEnd)) {
    const int32_t line = current().line;
    if (current().is(TokenKind::kData)) {
      result.push_back({line, DataStmt{next().text}});
    } else if (current().is(TokenKind::kVariableBegin)) {
      next();
      OutputStmt output;
      output.values.push_back(QUERN_TRY(tuple(Conditionals::kAllowed, {})));
      QUERN_TRY(expect(TokenKind::kVariableEnd, "'}}'"));
      result.push_back({line, std::move(output)});
    } else {
      next();  // the only other token outside a tag is {%
      if (at_any(ends)) return result;
      result.push_back(QUERN_TRY(parse_statement()));
      QUERN_TRY(expect(TokenKind::kBlockEnd, "'%}'"));
    }
  }
  if (ends.size() == 0) return result;
  return unexpected(fmt::format("{{% {} %}}", *ends.begin()));
}

Result<Body> Parser::block(Names ends) {
  skip_operator(":");
  QUERN_TRY(expect(TokenKind::kBlockEnd, "'%}'"));
  return body(ends);
}

Result<Body> Parser::block_to(std::string_view end) {
  Body result = QUERN_TRY(block({end}));
  next();
  return result;
}

Result<Stmt> Parser::parse_statement() {
  const Token tag = current();
  if (!tag.is(TokenKind::kName)) return unexpected("the name of a tag");
  const auto stmt = [&](auto node) { return Stmt{tag.line, std::move(node)}; };
  next();
  if (tag.text == "for") return stmt(QUERN_TRY(parse_for()));
  if (tag.text == "if") return stmt(QUERN_TRY(parse_if()));
  if (tag.text == "set") return parse_set();
  if (tag.text == "macro") return stmt(QUERN_TRY(parse_macro()));
  if (tag.text == "call") return stmt(QUERN_TRY(parse_call()));
  if (tag.text == "filter") return stmt(QUERN_TRY(parse_filter_block()));
  if (tag.text == "with") return stmt(QUERN_TRY(parse_with()));
  if (tag.text == "print") return stmt(QUERN_TRY(parse_print()));
  if (tag.text == "generation") return stmt(QUERN_TRY(parse_generation()));
  if (tag.text == "break" || tag.text == "continue") {
    if (loops_ == 0) return fail(tag, fmt::format("'{}' outside a loop", tag.text));
    if (tag.text == "break") return stmt(BreakStmt{});
    return stmt(ContinueStmt{});
  }
  return fail(tag, fmt::format("unknown tag '{}' (known: for, if, set, macro, call, filter, with, "
                               "print, break, continue, raw, generation)",
                               tag.text));
}

Result<ForStmt> Parser::parse_for() {
  ForStmt loop;
  const Token token = current();
  loop.target = QUERN_TRY(parse_target({"in"}));
  if (!loop.target.attribute.empty()) return fail(token, "a loop cannot assign to an attribute");
  if (!skip_name("in")) return unexpected("'in'");
  loop.items = QUERN_TRY(tuple(Conditionals::kNotAllowed, {"recursive"}));
  if (skip_name("if")) loop.condition = QUERN_TRY(expression());
  loop.recursive = skip_name("recursive");
  ++loops_;
  loop.body = QUERN_TRY(block({"endfor", "else"}));
  --loops_;
  if (next().text == "else") loop.otherwise = QUERN_TRY(block_to("endfor"));
  return loop;
}

Result<IfStmt> Parser::parse_if() {
  IfStmt result;
  for (;;) {
    ExprPtr condition = QUERN_TRY(tuple(Conditionals::kNotAllowed, {}));
    Body then = QUERN_TRY(block({"elif", "else", "endif"}));
    result.branches.emplace_back(std::move(condition), std::move(then));
    const Token end = next();
    if (end.is_name("elif")) continue;
    if (end.is_name("else")) result.otherwise = QUERN_TRY(block_to("endif"));
    return result;
  }
}

Result<Target> Parser::parse_single_target() {
  const Token token = current();
  if (skip_operator("(")) {
    Target inner = QUERN_TRY(parse_target({}));
    QUERN_TRY(expect_operator(")"));
    return inner;
  }
  static constexpr std::string_view kConstants[] = {"true", "false", "none",
                                                    "True", "False", "None"};
  Target target;
  const std::string name = QUERN_TRY(expect_name());
  if (std::find(std::begin(kConstants), std::end(kConstants), name) != std::end(kConstants)) {
    return fail(token, fmt::format("cannot assign to '{}'", name));
  }
  target.name = name_id(name);
  if (skip_operator(".")) target.attribute = QUERN_TRY(expect_name());
  return target;
}

Result<Target> Parser::parse_target(Names ends) {
  const Level level(depth_);
  QUERN_TRY(check_depth());
  Target all;
  for (;;) {
    const bool done =
        current().is_operator(")") || current().is(TokenKind::kBlockEnd) || at_any(ends);
    if (done && all.is_tuple) return all;
    Target one = QUERN_TRY(parse_single_target());
    if (!current().is_operator(",") && !all.is_tuple) return one;
    all.items.push_back(std::move(one));
    all.is_tuple = true;
    if (!skip_operator(",")) return all;
  }
}

Result<Stmt> Parser::parse_set() {
  const int32_t line = current().line;
  Target target = QUERN_TRY(parse_target({}));
  if (skip_operator("=")) {
    ExprPtr value = QUERN_TRY(tuple(Conditionals::kAllowed, {}));
    return Stmt{line, SetStmt{std::move(target), std::move(value)}};
  }
  SetBlockStmt block;
  block.target = std::move(target);
  if (skip_operator("|")) block.filter = QUERN_TRY(filter_chain(nullptr));
  block.body = QUERN_TRY(block_to("endset"));
  return Stmt{line, std::move(block)};
}

Result<std::vector<Parameter>> Parser::parse_signature() {
  std::vector<Parameter> parameters;
  QUERN_TRY(expect_operator("("));
  while (!current().is_operator(")")) {
    if (!parameters.empty()) QUERN_TRY(expect_operator(","));
    const Token token = current();
    Parameter parameter;
    parameter.name = name_id(QUERN_TRY(expect_name()));
    if (skip_operator("=")) {
      parameter.fallback = QUERN_TRY(expression());
    } else if (!parameters.empty() && parameters.back().fallback != nullptr) {
      return fail(token, "a parameter without default follows one with a default");
    }
    parameters.push_back(std::move(parameter));
  }
  next();
  return parameters;
}

Result<Unit> Parser::parse_callable_body(MacroStmt& macro, std::string_view end) {
  const int loops = std::exchange(loops_, 0);
  const size_t start = at_;
  macro.body = QUERN_TRY(block_to(end));
  loops_ = loops;
  for (size_t i = start; i < at_; ++i) {
    macro.takes_caller |= tokens_[i].is_name("caller");
    macro.takes_varargs |= tokens_[i].is_name("varargs");
    macro.takes_kwargs |= tokens_[i].is_name("kwargs");
  }
  return Unit{};
}

Result<MacroStmt> Parser::parse_macro() {
  MacroStmt macro;
  macro.shown_name = QUERN_TRY(expect_name());
  macro.name = name_id(macro.shown_name);
  macro.parameters = QUERN_TRY(parse_signature());
  QUERN_TRY(parse_callable_body(macro, "endmacro"));
  return macro;
}

Result<CallStmt> Parser::parse_call() {
  CallStmt result;
  result.caller.shown_name = "caller";
  if (current().is_operator("(")) result.caller.parameters = QUERN_TRY(parse_signature());
  const Token token = current();
  result.call = QUERN_TRY(expression());
  if (!std::holds_alternative<CallExpr>(result.call->node)) return fail(token, "expected a call");
  QUERN_TRY(parse_callable_body(result.caller, "endcall"));
  return result;
}

Result<FilterStmt> Parser::parse_filter_block() {
  FilterStmt result;
  result.filter = QUERN_TRY(filter_chain(nullptr));
  result.body = QUERN_TRY(block_to("endfilter"));
  return result;
}

Result<WithStmt> Parser::parse_with() {
  WithStmt result;
  while (!current().is(TokenKind::kBlockEnd)) {
    if (!result.bindings.empty()) QUERN_TRY(expect_operator(","));
    Target target = QUERN_TRY(parse_single_target());
    QUERN_TRY(expect_operator("="));
    ExprPtr value = QUERN_TRY(expression());
    result.bindings.emplace_back(std::move(target), std::move(value));
  }
  result.body = QUERN_TRY(block_to("endwith"));
  return result;
}

// {% generation %} marks the assistant's text for training; here it is only a scope.
Result<WithStmt> Parser::parse_generation() {
  WithStmt result;
  const int loops = std::exchange(loops_, 0);
  result.body = QUERN_TRY(block_to("endgeneration"));
  loops_ = loops;
  return result;
}

Result<OutputStmt> Parser::parse_print() {
  OutputStmt result;
  while (!current().is(TokenKind::kBlockEnd)) {
    if (!result.values.empty()) QUERN_TRY(expect_operator(","));
    result.values.push_back(QUERN_TRY(expression()));
  }
  return result;
}

}  // namespace quern::jinja
