#include <algorithm>

#include <fmt/format.h>

#include "text/jinja_filters.h"
#include "text/jinja_parser.h"
#include "text/jinja_tests.h"
#include "text/jinja_text.h"

namespace quern::jinja {
namespace {

int32_t height_of(const ExprPtr& expr) { return expr == nullptr ? 0 : expr->height; }

int32_t height_of(const std::vector<ExprPtr>& exprs) {
  int32_t height = 0;
  for (const ExprPtr& expr : exprs) height = std::max(height, expr->height);
  return height;
}

int32_t height_of(const Arguments& arguments) {
  int32_t height = std::max({height_of(arguments.positional), height_of(arguments.star),
                             height_of(arguments.double_star)});
  for (const auto& [name, value] : arguments.named) height = std::max(height, value->height);
  return height;
}

int32_t height_below(const ConstantExpr&) { return 0; }
int32_t height_below(const NameExpr&) { return 0; }
int32_t height_below(const ListExpr& n) { return height_of(n.items); }
int32_t height_below(const TupleExpr& n) { return height_of(n.items); }
int32_t height_below(const DictExpr& n) {
  int32_t height = 0;
  for (const auto& [key, value] : n.pairs) height = std::max({height, key->height, value->height});
  return height;
}
int32_t height_below(const SliceExpr& n) {
  return std::max({height_of(n.start), height_of(n.stop), height_of(n.step)});
}
int32_t height_below(const AttributeExpr& n) { return height_of(n.object); }
int32_t height_below(const ItemExpr& n) { return std::max(height_of(n.object), height_of(n.key)); }
int32_t height_below(const CallExpr& n) {
  return std::max(height_of(n.callee), height_of(n.arguments));
}
int32_t height_below(const FilterExpr& n) {
  return std::max(height_of(n.subject), height_of(n.arguments));
}
int32_t height_below(const TestExpr& n) {
  return std::max(height_of(n.subject), height_of(n.arguments));
}
int32_t height_below(const UnaryExpr& n) { return height_of(n.operand); }
int32_t height_below(const BinaryExpr& n) {
  return std::max(height_of(n.left), height_of(n.right));
}
int32_t height_below(const LogicExpr& n) { return std::max(height_of(n.left), height_of(n.right)); }
int32_t height_below(const ConcatExpr& n) { return height_of(n.parts); }
int32_t height_below(const CompareExpr& n) {
  int32_t height = height_of(n.first);
  for (const auto& [op, operand] : n.rest) height = std::max(height, operand->height);
  return height;
}
int32_t height_below(const ConditionalExpr& n) {
  return std::max({height_of(n.condition), height_of(n.then), height_of(n.otherwise)});
}

}  // namespace

// Left-deep chains (a + b + c ...) are parsed by loops, so the height of the tree needs its own
// check.
template <typename Node>
Result<ExprPtr> Parser::make(int32_t line, Node node) {
  auto expr = std::make_unique<Expr>();
  expr->line = line;
  expr->height = 1 + height_below(node);
  if (expr->height > kMaxSyntaxDepth) return fail("the expression is nested too deeply");
  expr->node = std::move(node);
  return ExprPtr(std::move(expr));
}

Result<ExprPtr> Parser::expression() {
  const Level level(depth_);
  QUERN_TRY(check_depth());
  const int32_t line = current().line;
  ExprPtr result = QUERN_TRY(parse_or());
  while (skip_name("if")) {
    ConditionalExpr conditional;
    conditional.condition = QUERN_TRY(parse_or());
    conditional.then = std::move(result);
    if (skip_name("else")) conditional.otherwise = QUERN_TRY(expression());
    result = QUERN_TRY(make(line, std::move(conditional)));
  }
  return result;
}

Result<ExprPtr> Parser::tuple(Conditionals conditionals, Names ends) {
  const int32_t line = current().line;
  TupleExpr all;
  bool is_tuple = false;
  for (;;) {
    const bool done = current().is(TokenKind::kVariableEnd) || current().is(TokenKind::kBlockEnd) ||
                      current().is_operator(")") || at_any(ends);
    if (done) {
      if (!is_tuple) return unexpected("an expression");
      break;
    }
    all.items.push_back(QUERN_TRY(
        conditionals == Conditionals::kAllowed ? expression() : condition_free_expression()));
    if (!skip_operator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple) return std::move(all.items.front());
  return make(line, std::move(all));
}

Result<ExprPtr> Parser::parenthesized() {
  const int32_t line = next().line;
  if (skip_operator(")")) return make(line, TupleExpr{});
  ExprPtr inner = QUERN_TRY(tuple(Conditionals::kAllowed, {}));
  QUERN_TRY(expect_operator(")"));
  return inner;
}

Result<ExprPtr> Parser::parse_or() {
  const int32_t line = current().line;
  ExprPtr left = QUERN_TRY(parse_and());
  while (skip_name("or")) {
    ExprPtr right = QUERN_TRY(parse_and());
    left = QUERN_TRY(make(line, LogicExpr{false, std::move(left), std::move(right)}));
  }
  return left;
}

Result<ExprPtr> Parser::parse_and() {
  const int32_t line = current().line;
  ExprPtr left = QUERN_TRY(parse_not());
  while (skip_name("and")) {
    ExprPtr right = QUERN_TRY(parse_not());
    left = QUERN_TRY(make(line, LogicExpr{true, std::move(left), std::move(right)}));
  }
  return left;
}

Result<ExprPtr> Parser::parse_not() {
  const Level level(depth_);
  QUERN_TRY(check_depth());
  const int32_t line = current().line;
  if (!skip_name("not")) return parse_compare();
  ExprPtr operand = QUERN_TRY(parse_not());
  return make(line, UnaryExpr{UnaryOp::kNot, std::move(operand)});
}

Result<ExprPtr> Parser::parse_compare() {
  static constexpr std::pair<std::string_view, CompareOp> kOperators[] = {
      {"==", CompareOp::kEq}, {"!=", CompareOp::kNe}, {"<", CompareOp::kLt},
      {"<=", CompareOp::kLe}, {">", CompareOp::kGt},  {">=", CompareOp::kGe}};
  const int32_t line = current().line;
  CompareExpr compare;
  compare.first = QUERN_TRY(parse_sum());
  for (;;) {
    const auto* found =
        std::find_if(std::begin(kOperators), std::end(kOperators),
                     [&](const auto& op) { return current().is_operator(op.first); });
    CompareOp op = CompareOp::kIn;
    if (found != std::end(kOperators)) {
      op = found->second;
      next();
    } else if (current().is_name("not") && following().is_name("in")) {
      op = CompareOp::kNotIn;
      next();
      next();
    } else if (!skip_name("in")) {
      break;
    }
    compare.rest.emplace_back(op, QUERN_TRY(parse_sum()));
  }
  if (compare.rest.empty()) return std::move(compare.first);
  return make(line, std::move(compare));
}

Result<ExprPtr> Parser::parse_sum() {
  const int32_t line = current().line;
  ExprPtr left = QUERN_TRY(parse_concat());
  while (current().is_operator("+") || current().is_operator("-")) {
    const BinaryOp op = next().text == "+" ? BinaryOp::kAdd : BinaryOp::kSub;
    ExprPtr right = QUERN_TRY(parse_concat());
    left = QUERN_TRY(make(line, BinaryExpr{op, std::move(left), std::move(right)}));
  }
  return left;
}

Result<ExprPtr> Parser::parse_concat() {
  const int32_t line = current().line;
  ConcatExpr concat;
  concat.parts.push_back(QUERN_TRY(parse_product()));
  while (skip_operator("~")) concat.parts.push_back(QUERN_TRY(parse_product()));
  if (concat.parts.size() == 1) return std::move(concat.parts.front());
  return make(line, std::move(concat));
}

Result<ExprPtr> Parser::parse_product() {
  static constexpr std::pair<std::string_view, BinaryOp> kOperators[] = {
      {"*", BinaryOp::kMul},
      {"/", BinaryOp::kDiv},
      {"//", BinaryOp::kFloorDiv},
      {"%", BinaryOp::kMod}};
  const int32_t line = current().line;
  ExprPtr left = QUERN_TRY(parse_power());
  for (;;) {
    const auto* found =
        std::find_if(std::begin(kOperators), std::end(kOperators),
                     [&](const auto& op) { return current().is_operator(op.first); });
    if (found == std::end(kOperators)) return left;
    next();
    ExprPtr right = QUERN_TRY(parse_power());
    left = QUERN_TRY(make(line, BinaryExpr{found->second, std::move(left), std::move(right)}));
  }
}

Result<ExprPtr> Parser::parse_power() {
  const int32_t line = current().line;
  ExprPtr left = QUERN_TRY(parse_unary(Filters::kAllowed));
  while (skip_operator("**")) {
    ExprPtr right = QUERN_TRY(parse_unary(Filters::kAllowed));
    left = QUERN_TRY(make(line, BinaryExpr{BinaryOp::kPow, std::move(left), std::move(right)}));
  }
  return left;
}

Result<ExprPtr> Parser::parse_unary(Filters filters) {
  const Level level(depth_);
  QUERN_TRY(check_depth());
  const int32_t line = current().line;
  ExprPtr result;
  if (current().is_operator("-") || current().is_operator("+")) {
    const UnaryOp op = next().text == "-" ? UnaryOp::kNegative : UnaryOp::kPositive;
    ExprPtr operand = QUERN_TRY(parse_unary(Filters::kNotAllowed));
    result = QUERN_TRY(make(line, UnaryExpr{op, std::move(operand)}));
  } else {
    result = QUERN_TRY(parse_primary());
  }
  result = QUERN_TRY(postfix(std::move(result)));
  if (filters == Filters::kNotAllowed) return result;
  return filters_and_tests(std::move(result));
}

Result<ExprPtr> Parser::parse_primary() {
  const Token& token = current();
  const int32_t line = token.line;
  if (token.is(TokenKind::kString)) return parse_strings();
  if (token.is(TokenKind::kInteger)) return constant(line, Value::from(next().integer));
  if (token.is(TokenKind::kFloat)) return constant(line, Value::from(next().real));
  if (token.is_operator("(")) return parenthesized();
  if (token.is_operator("[")) return parse_list();
  if (token.is_operator("{")) return parse_dict();
  if (!token.is(TokenKind::kName)) return unexpected("an expression");
  const std::string name = next().text;
  if (name == "true" || name == "True") return constant(line, Value::from(true));
  if (name == "false" || name == "False") return constant(line, Value::from(false));
  if (name == "none" || name == "None") return constant(line, Value::none());
  return make(line, NameExpr{name_id(name)});
}

// Adjacent literals are one string, as in Python.
Result<ExprPtr> Parser::parse_strings() {
  const int32_t line = current().line;
  std::string text;
  while (current().is(TokenKind::kString)) text += next().text;
  auto expr = std::make_unique<Expr>();
  expr->line = line;
  expr->node = ConstantExpr{{}, std::move(text), {}};
  // The value borrows from the node, so it is set once the node has its address.
  auto& node = std::get<ConstantExpr>(expr->node);
  node.string = Str{node.text, {}, code_points(node.text)};
  node.value = Value::from(&node.string);
  return ExprPtr(std::move(expr));
}

Result<ExprPtr> Parser::parse_list() {
  const int32_t line = next().line;
  ListExpr list;
  while (!current().is_operator("]")) {
    if (!list.items.empty()) QUERN_TRY(expect_operator(","));
    if (current().is_operator("]")) break;
    list.items.push_back(QUERN_TRY(expression()));
  }
  next();
  return make(line, std::move(list));
}

Result<ExprPtr> Parser::parse_dict() {
  const int32_t line = next().line;
  DictExpr dict;
  while (!current().is_operator("}")) {
    if (!dict.pairs.empty()) QUERN_TRY(expect_operator(","));
    if (current().is_operator("}")) break;
    ExprPtr key = QUERN_TRY(expression());
    QUERN_TRY(expect_operator(":"));
    ExprPtr value = QUERN_TRY(expression());
    dict.pairs.emplace_back(std::move(key), std::move(value));
  }
  next();
  return make(line, std::move(dict));
}

Result<ExprPtr> Parser::postfix(ExprPtr expr) {
  for (;;) {
    if (current().is_operator(".") || current().is_operator("[")) {
      expr = QUERN_TRY(subscript(std::move(expr)));
    } else if (current().is_operator("(")) {
      expr = QUERN_TRY(call(std::move(expr)));
    } else {
      return expr;
    }
  }
}

Result<ExprPtr> Parser::filters_and_tests(ExprPtr expr) {
  for (;;) {
    if (skip_operator("|")) {
      expr = QUERN_TRY(filter(std::move(expr)));
    } else if (skip_name("is")) {
      expr = QUERN_TRY(test(std::move(expr)));
    } else if (current().is_operator("(")) {
      expr = QUERN_TRY(call(std::move(expr)));
    } else {
      return expr;
    }
  }
}

Result<ExprPtr> Parser::subscript(ExprPtr expr) {
  const int32_t line = current().line;
  if (skip_operator(".")) {
    if (current().is(TokenKind::kName)) {
      return make(line, AttributeExpr{std::move(expr), next().text});
    }
    if (!current().is(TokenKind::kInteger)) return unexpected("a name or a number");
    ExprPtr index = QUERN_TRY(constant(line, Value::from(next().integer)));
    return make(line, ItemExpr{std::move(expr), std::move(index)});
  }
  next();
  TupleExpr keys;
  bool is_tuple = false;
  while (!current().is_operator("]")) {
    if (!keys.items.empty()) {
      QUERN_TRY(expect_operator(","));
      is_tuple = true;
    }
    keys.items.push_back(QUERN_TRY(parse_subscript_key()));
  }
  next();
  ExprPtr key;
  if (keys.items.size() == 1 && !is_tuple) {
    key = std::move(keys.items.front());
  } else {
    key = QUERN_TRY(make(line, std::move(keys)));
  }
  return make(line, ItemExpr{std::move(expr), std::move(key)});
}

Result<ExprPtr> Parser::parse_subscript_key() {
  const int32_t line = current().line;
  const auto ends = [&] {
    return current().is_operator("]") || current().is_operator(",") || current().is_operator(":");
  };
  SliceExpr slice;
  if (!current().is_operator(":")) {
    slice.start = QUERN_TRY(expression());
    if (!current().is_operator(":")) return std::move(slice.start);
  }
  next();
  if (!ends()) slice.stop = QUERN_TRY(expression());
  if (skip_operator(":") && !ends()) slice.step = QUERN_TRY(expression());
  return make(line, std::move(slice));
}

Result<ExprPtr> Parser::call(ExprPtr callee) {
  const int32_t line = current().line;
  Arguments arguments = QUERN_TRY(parse_arguments());
  return make(line, CallExpr{std::move(callee), std::move(arguments)});
}

Result<Unit> Parser::parse_argument(Arguments& arguments) {
  const bool after_star = arguments.star != nullptr || arguments.double_star != nullptr;
  if (current().is_operator("*") || current().is_operator("**")) {
    ExprPtr& target = current().is_operator("*") ? arguments.star : arguments.double_star;
    const bool misplaced =
        current().is_operator("*") ? after_star : arguments.double_star != nullptr;
    if (misplaced) return fail("a starred argument is misplaced");
    next();
    target = QUERN_TRY(expression());
    return Unit{};
  }
  if (current().is(TokenKind::kName) && following().is_operator("=")) {
    if (arguments.double_star != nullptr) return fail("an argument follows **");
    std::string name = next().text;
    next();
    for (const auto& [other, value] : arguments.named) {
      if (other == name) return fail(fmt::format("the argument '{}' is given twice", name));
    }
    arguments.named.emplace_back(std::move(name), QUERN_TRY(expression()));
    return Unit{};
  }
  if (after_star || !arguments.named.empty()) {
    return fail("a positional argument follows one by name");
  }
  arguments.positional.push_back(QUERN_TRY(expression()));
  return Unit{};
}

Result<Arguments> Parser::parse_arguments() {
  QUERN_TRY(expect_operator("("));
  Arguments arguments;
  bool first = true;
  while (!current().is_operator(")")) {
    if (!first) QUERN_TRY(expect_operator(","));
    if (current().is_operator(")")) break;
    first = false;
    QUERN_TRY(parse_argument(arguments));
  }
  next();
  return arguments;
}

Result<std::string> Parser::dotted_name() {
  std::string name = QUERN_TRY(expect_name());
  while (skip_operator(".")) name += "." + QUERN_TRY(expect_name());
  return name;
}

Result<ExprPtr> Parser::filter(ExprPtr subject) {
  const Token token = current();
  FilterExpr result;
  result.name = QUERN_TRY(dotted_name());
  result.subject = std::move(subject);
  result.filter = find_filter(result.name);
  if (current().is_operator("(")) result.arguments = QUERN_TRY(parse_arguments());
  return make(token.line, std::move(result));
}

Result<ExprPtr> Parser::filter_chain(ExprPtr subject) {
  ExprPtr result = QUERN_TRY(filter(std::move(subject)));
  while (skip_operator("|")) result = QUERN_TRY(filter(std::move(result)));
  return result;
}

Result<ExprPtr> Parser::test(ExprPtr subject) {
  const Token token = current();
  const bool negated = skip_name("not");
  TestExpr result;
  result.name = QUERN_TRY(dotted_name());
  result.subject = std::move(subject);
  result.test = find_test(result.name);
  if (current().is_operator("(")) {
    result.arguments = QUERN_TRY(parse_arguments());
  } else if (const Token& t = current();
             (t.is(TokenKind::kName) && !at_any({"else", "or", "and"})) ||
             t.is(TokenKind::kString) || t.is(TokenKind::kInteger) || t.is(TokenKind::kFloat) ||
             t.is_operator("[") || t.is_operator("{")) {
    if (t.is_name("is")) return fail("tests cannot be chained with 'is'");
    ExprPtr argument = QUERN_TRY(parse_primary());
    result.arguments.positional.push_back(QUERN_TRY(postfix(std::move(argument))));
  }
  ExprPtr made = QUERN_TRY(make(token.line, std::move(result)));
  if (!negated) return made;
  return make(token.line, UnaryExpr{UnaryOp::kNot, std::move(made)});
}

}  // namespace quern::jinja
