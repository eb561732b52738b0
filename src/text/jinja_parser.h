// Parses a template's source into statements and expressions, with the grammar of Jinja2.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "text/jinja_ast.h"
#include "text/jinja_lexer.h"

namespace quern::jinja {

// Levels of brackets, operators and blocks within each other: bounds the parser's own recursion.
inline constexpr int kMaxSyntaxDepth = 200;

// Errors: kInvalidArgument naming line and column.
Result<std::unique_ptr<const Template>> parse_template(std::string_view source);

class Parser {
 public:
  Parser(std::string_view source, std::vector<Token> tokens)
      : source_(source), tokens_(std::move(tokens)), parsed_(std::make_unique<Template>()) {}

  Result<std::unique_ptr<const Template>> run();

 private:
  using Names = std::initializer_list<std::string_view>;

  // Statements: jinja_parser_statements.cc. A body ends in front of the first word of one of
  // `ends`.
  Result<Body> body(Names ends);
  // The rest of a tag, the body, and the tag that ends it up to its `%}` (excluded).
  Result<Body> block(Names ends);
  Result<Body> block_to(std::string_view end);
  Result<Unit> statement(Body& out);
  Result<Stmt> parse_statement();
  Result<ForStmt> parse_for();
  Result<IfStmt> parse_if();
  Result<Stmt> parse_set();
  Result<MacroStmt> parse_macro();
  Result<CallStmt> parse_call();
  Result<FilterStmt> parse_filter_block();
  Result<WithStmt> parse_with();
  Result<WithStmt> parse_generation();
  Result<OutputStmt> parse_print();
  Result<std::vector<Parameter>> parse_signature();
  // The body of a macro or call: no loop around it, and what it mentions of its caller.
  Result<Unit> parse_callable_body(MacroStmt& macro, std::string_view end);
  Result<Target> parse_target(Names ends);
  Result<Target> parse_single_target();

  // Expressions: jinja_parser_expressions.cc.
  Result<ExprPtr> expression();
  Result<ExprPtr> condition_free_expression() { return parse_or(); }

  enum class Conditionals { kAllowed, kNotAllowed };
  // One expression, or a tuple when commas follow.
  Result<ExprPtr> tuple(Conditionals conditionals, Names ends);
  Result<ExprPtr> parenthesized();
  Result<ExprPtr> parse_or();
  Result<ExprPtr> parse_and();
  Result<ExprPtr> parse_not();
  Result<ExprPtr> parse_compare();
  Result<ExprPtr> parse_sum();
  Result<ExprPtr> parse_concat();
  Result<ExprPtr> parse_product();
  Result<ExprPtr> parse_power();

  enum class Filters { kAllowed, kNotAllowed };
  Result<ExprPtr> parse_unary(Filters filters);
  Result<ExprPtr> parse_primary();
  Result<ExprPtr> parse_list();
  Result<ExprPtr> parse_dict();
  Result<ExprPtr> parse_strings();
  Result<ExprPtr> postfix(ExprPtr expr);
  Result<ExprPtr> filters_and_tests(ExprPtr expr);
  Result<ExprPtr> subscript(ExprPtr expr);
  Result<ExprPtr> parse_subscript_key();
  Result<ExprPtr> call(ExprPtr callee);
  Result<Arguments> parse_arguments();
  Result<Unit> parse_argument(Arguments& arguments);
  // The filter behind a `|`, already skipped.
  Result<ExprPtr> filter(ExprPtr subject);
  Result<ExprPtr> filter_chain(ExprPtr subject);
  Result<ExprPtr> test(ExprPtr subject);
  Result<std::string> dotted_name();

  template <typename Node>
  Result<ExprPtr> make(int32_t line, Node node);

  Result<ExprPtr> constant(int32_t line, Value value) {
    return make(line, ConstantExpr{value, {}, {}});
  }

  // Tokens.
  const Token& current() const { return tokens_[at_]; }

  const Token& following() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }

  Token next() {
    Token token = tokens_[at_];
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }

  bool skip_name(std::string_view name);
  bool skip_operator(std::string_view op);
  Result<Unit> expect_operator(std::string_view op);
  Result<Unit> expect(TokenKind kind, std::string_view shown);
  Result<std::string> expect_name();
  bool at_any(Names names) const;

  Error fail(const std::string& message) const { return fail(current(), message); }

  Error fail(const Token& token, const std::string& message) const {
    return syntax_error(source_, token.offset, message);
  }

  Error unexpected(std::string_view wanted) const;
  NameId name_id(const std::string& name);

  // Counts nesting for the lifetime of the object.
  struct Level {
    explicit Level(int& depth) : depth_(depth) { ++depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;
    ~Level() { --depth_; }
    int& depth_;
  };

  Result<Unit> check_depth() const {
    if (depth_ <= kMaxSyntaxDepth) return Unit{};
    return fail("nested too deeply");
  }

  std::string_view source_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
  int depth_ = 0;
  int loops_ = 0;  // loops around the current statement, within the same macro
  std::unique_ptr<Template> parsed_;
};

}  // namespace quern::jinja
