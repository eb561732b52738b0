#include "text/grammar_ebnf.h"

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "text/grammar_regex.h"
#include "text/unicode.h"

namespace quern {
namespace {

constexpr int kMaxGroupDepth = 100;
constexpr int32_t kMaxRepeat = 100'000;  // larger counts exceed every limit of states

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool is_name_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c) || c == '_' || c == '-';
}

class EbnfParser {
 public:
  EbnfParser(std::string_view text, Expressions& out) : text_(text), out_(out) {}

  Result<ExpressionId> run();

 private:
  struct Rule {
    RuleId id = 0;
    bool given = false;
    size_t first_use = 0;
  };

  bool done() const { return at_ == text_.size(); }
  bool at(char c) const { return !done() && text_[at_] == c; }
  bool take(char c) {
    if (!at(c)) return false;
    ++at_;
    return true;
  }
  void skip();
  std::string_view name();
  bool at_rule_start();
  Rule& rule(std::string_view name);

  Error wrong_at(size_t where, std::string_view what) const;
  Error wrong(std::string_view what) const { return wrong_at(at_, what); }

  Result<Unit> definition();
  Result<ExpressionId> alternatives(int depth);
  Result<ExpressionId> row(int depth);
  Result<ExpressionId> element(int depth);
  Result<ExpressionId> literal();
  Result<ExpressionId> repeated(ExpressionId element);
  Result<int32_t> count();

  std::string_view text_;
  size_t at_ = 0;
  Expressions& out_;
  std::map<std::string, Rule, std::less<>> rules_;
};

Error EbnfParser::wrong_at(size_t where, std::string_view what) const {
  const std::string_view before = text_.substr(0, where);
  const auto line = std::count(before.begin(), before.end(), '\n') + 1;
  return {ErrorCode::kInvalidArgument, fmt::format("line {}: {}", line, what)};
}

// White space and comments.
void EbnfParser::skip() {
  while (!done()) {
    if (text_[at_] == '#') {
      while (!done() && text_[at_] != '\n') ++at_;
    } else if (text_[at_] == ' ' || (text_[at_] >= '\t' && text_[at_] <= '\r')) {
      ++at_;
    } else {
      return;
    }
  }
}

std::string_view EbnfParser::name() {
  const size_t begin = at_;
  while (!done() && is_name_character(text_[at_])) ++at_;
  return text_.substr(begin, at_ - begin);
}

// Whether a name and `::=` are next; nothing is taken.
bool EbnfParser::at_rule_start() {
  const size_t begin = at_;
  bool starts = !name().empty();
  skip();
  starts = starts && text_.substr(at_).starts_with("::=");
  at_ = begin;
  return starts;
}

EbnfParser::Rule& EbnfParser::rule(std::string_view name) {
  const auto found = rules_.find(name);
  if (found != rules_.end()) return found->second;
  Rule made;
  made.id = out_.add_rule(fmt::format("rule `{}`", name));
  made.first_use = at_;
  return rules_.emplace(name, made).first->second;
}

Result<ExpressionId> EbnfParser::run() {
  if (!is_valid_utf8(text_)) return wrong("not valid UTF-8");
  for (skip(); !done(); skip()) QUERN_TRY(definition());
  for (const auto& [name, rule] : rules_) {
    if (!rule.given) return wrong_at(rule.first_use, fmt::format("rule `{}` is missing", name));
  }
  const auto root = rules_.find("root");
  if (root == rules_.end()) return wrong("rule `root` is missing");
  return out_.call(root->second.id);
}

Result<Unit> EbnfParser::definition() {
  if (!at_rule_start()) return wrong("expected a rule: its name and `::=`");
  Rule& mine = rule(name());
  if (mine.given) return wrong("a rule given twice");
  mine.given = true;
  const RuleId id = mine.id;
  skip();
  at_ += 3;
  out_.set_rule(id, QUERN_TRY(alternatives(0)));
  return Unit{};
}

Result<ExpressionId> EbnfParser::alternatives(int depth) {
  if (depth > kMaxGroupDepth) return wrong("groups nested too deeply");
  std::vector<ExpressionId> branches;
  do {
    branches.push_back(QUERN_TRY(row(depth)));
  } while (take('|'));
  return out_.choice(std::move(branches));
}

Result<ExpressionId> EbnfParser::row(int depth) {
  std::vector<ExpressionId> parts;
  for (skip(); !done() && !at('|') && !at(')') && !at_rule_start(); skip()) {
    const ExpressionId one = QUERN_TRY(element(depth));
    parts.push_back(QUERN_TRY(repeated(one)));
  }
  if (depth == 0 && at(')')) return wrong("`)` without a group");
  return out_.sequence(std::move(parts));
}

Result<ExpressionId> EbnfParser::element(int depth) {
  if (take('(')) {
    const ExpressionId inside = QUERN_TRY(alternatives(depth + 1));
    if (!take(')')) return wrong("a group without `)`");
    return inside;
  }
  if (at('"')) return literal();
  if (take('.')) return encode_set(CodePointSet::all(), TextEncoding::kPlain, out_);
  if (at('[')) {
    const Result<CodePointSet> set = parse_character_class(text_, at_);
    if (!set) return wrong(set.error().message);
    return encode_set(*set, TextEncoding::kPlain, out_);
  }
  const std::string_view called = name();
  if (called.empty()) return wrong("expected text in quotes, a class, a name or a group");
  return out_.call(rule(called).id);
}

Result<ExpressionId> EbnfParser::literal() {
  const size_t begin = at_++;
  std::string text;
  while (!at('"')) {
    if (done()) return wrong_at(begin, "text without its closing quote");
    if (!at('\\')) {
      text += text_[at_++];
      continue;
    }
    ++at_;
    const Result<char32_t> escaped = parse_escape(text_, at_);
    if (!escaped) return wrong_at(begin, escaped.error().message);
    append_code_point(*escaped, text);
  }
  ++at_;
  return out_.literal(text);
}

Result<int32_t> EbnfParser::count() {
  if (done() || !is_digit(text_[at_])) return wrong("expected a number in `{}`");
  int32_t value = 0;
  for (; !done() && is_digit(text_[at_]); ++at_) {
    if (value <= kMaxRepeat) value = value * 10 + (text_[at_] - '0');
  }
  if (value > kMaxRepeat) return wrong(fmt::format("a repeat count above {}", kMaxRepeat));
  return value;
}

Result<ExpressionId> EbnfParser::repeated(ExpressionId element) {
  if (take('*')) return out_.repeat(element, 0, kUnbounded);
  if (take('+')) return out_.repeat(element, 1, kUnbounded);
  if (take('?')) return out_.optional(element);
  if (!take('{')) return element;
  const int32_t min = QUERN_TRY(count());
  int32_t max = min;
  if (take(',')) max = at('}') ? kUnbounded : QUERN_TRY(count());
  if (!take('}')) return wrong("`{` without `}`");
  if (max != kUnbounded && max < min) return wrong("a repeat whose most is below its least");
  return out_.repeat(element, min, max);
}

}  // namespace

Result<ExpressionId> ebnf_expression(std::string_view text, Expressions& out) {
  return EbnfParser(text, out).run();
}

}  // namespace quern
