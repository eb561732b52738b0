#include "text/jinja_lexer.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "text/jinja_literals.h"
#include "text/jinja_text.h"

namespace quern::jinja {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool is_name_byte(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         static_cast<unsigned char>(c) >= 0x80;
}

bool all_space(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    if (!is_space(next_code_point(text, i))) return false;
  }
  return true;
}

std::string_view without_trailing_space(std::string_view text) {
  while (!text.empty()) {
    size_t last = text.size() - 1;
    while (last > 0 && (static_cast<unsigned char>(text[last]) & 0xc0u) == 0x80u) --last;
    size_t next = last;
    if (!is_space(next_code_point(text, next))) break;
    text = text.substr(0, last);
  }
  return text;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(source) {}

  Result<std::vector<Token>> run() {
    while (at_ < source_.size()) QUERN_TRY(root());
    push(TokenKind::kEnd, at_);
    return std::move(tokens_);
  }

 private:
  // The text up to the next tag, and the tag.
  Result<Unit> root();
  Result<Unit> comment(size_t start);
  Result<Unit> raw(size_t start, size_t content);
  Result<Unit> tag(TokenKind begin, TokenKind end, std::string_view close);
  // True when the tag ends here; moves behind its end and the white space that goes with it.
  bool tag_ends(std::string_view close);
  Result<Unit> token();
  Result<Unit> string_token();
  Result<bool> number_token();
  Result<Unit> operator_token();

  void data(std::string_view text, char sign, bool strips_line);
  void push(TokenKind kind, size_t offset, std::string text = {});

  void skip_space() {
    while (at_ < source_.size()) {
      size_t next = at_;
      if (!is_space(next_code_point(source_, next))) break;
      at_ = next;
    }
  }

  bool next_is(std::string_view text) const { return source_.substr(at_).starts_with(text); }

  char sign_here() const {
    return at_ < source_.size() && (source_[at_] == '-' || source_[at_] == '+') ? source_[at_]
                                                                                : '\0';
  }

  // Skips [-+] and the white space, `word` and white space of a raw or endraw tag.
  bool skip_raw_word(std::string_view word);

  Error error(size_t offset, const std::string& message) const {
    return syntax_error(source_, offset, message);
  }

  std::string_view source_;
  size_t at_ = 0;
  size_t counted_ = 0;  // lines are counted up to here
  int32_t line_ = 1;
  std::string open_;  // closing brackets still expected
  std::vector<Token> tokens_;
};

void Lexer::push(TokenKind kind, size_t offset, std::string text) {
  for (; counted_ < offset; ++counted_) line_ += source_[counted_] == '\n';
  Token token;
  token.kind = kind;
  token.text = std::move(text);
  token.offset = static_cast<uint32_t>(offset);
  token.line = line_;
  tokens_.push_back(std::move(token));
}

// `sign` is that of the tag behind the text; `strips_line` holds for all tags but {{.
void Lexer::data(std::string_view text, char sign, bool strips_line) {
  const auto offset = static_cast<size_t>(text.data() - source_.data());
  if (sign == '-') {
    text = without_trailing_space(text);
  } else if (sign != '+' && strips_line) {
    const size_t line = text.rfind('\n') + 1;  // npos + 1 is 0
    const bool starts_line = line > 0 || offset == 0 || source_[offset - 1] == '\n';
    if (starts_line && all_space(text.substr(line))) text = text.substr(0, line);
  }
  if (!text.empty()) push(TokenKind::kData, offset, std::string(text));
}

bool Lexer::skip_raw_word(std::string_view word) {
  if (sign_here() != 0) ++at_;
  skip_space();
  if (!next_is(word)) return false;
  at_ += word.size();
  skip_space();
  return true;
}

Result<Unit> Lexer::root() {
  const size_t start = at_;
  size_t open = source_.find('{', start);
  while (open != std::string_view::npos &&
         (open + 1 == source_.size() ||
          std::string_view("%{#").find(source_[open + 1]) == std::string_view::npos)) {
    open = source_.find('{', open + 1);
  }
  if (open == std::string_view::npos) {
    data(source_.substr(start), '+', false);
    at_ = source_.size();
    return Unit{};
  }
  const char kind = source_[open + 1];
  at_ = open + 2;
  const char sign = sign_here();
  data(source_.substr(start, open - start), sign, kind != '{');
  if (kind == '%' && skip_raw_word("raw") && (next_is("%}") || next_is("-%}"))) {
    const bool strips = next_is("-");
    at_ += strips ? 3 : 2;
    if (strips) skip_space();
    return raw(open, at_);
  }
  at_ = open + 2 + (sign != 0 ? 1 : 0);
  if (kind == '#') return comment(open);
  if (kind == '%') {
    push(TokenKind::kBlockBegin, open);
    return tag(TokenKind::kBlockBegin, TokenKind::kBlockEnd, "%}");
  }
  push(TokenKind::kVariableBegin, open);
  return tag(TokenKind::kVariableBegin, TokenKind::kVariableEnd, "}}");
}

Result<Unit> Lexer::comment(size_t start) {
  const size_t end = source_.find("#}", at_);
  if (end == std::string_view::npos) return error(start, "the comment has no end: #} is missing");
  const char sign = end > at_ ? source_[end - 1] : '\0';
  at_ = end + 2;
  if (sign == '-') {
    skip_space();
  } else if (sign != '+' && next_is("\n")) {
    ++at_;
  }
  return Unit{};
}

Result<Unit> Lexer::raw(size_t start, size_t content) {
  for (size_t open = source_.find("{%", content); open != std::string_view::npos;
       open = source_.find("{%", open + 2)) {
    at_ = open + 2;
    const char sign = sign_here();
    if (!skip_raw_word("endraw")) continue;
    if (!tag_ends("%}")) continue;
    const size_t behind = at_;
    data(source_.substr(content, open - content), sign, true);
    at_ = behind;
    return Unit{};
  }
  return error(start, "the raw block has no end: {% endraw %} is missing");
}

bool Lexer::tag_ends(std::string_view close) {
  const bool block = close == "%}";
  const char sign = sign_here();
  if (sign == '+' && !block) return false;
  const size_t behind_sign = at_ + (sign != 0 ? 1 : 0);
  if (!source_.substr(behind_sign).starts_with(close)) return false;
  at_ = behind_sign + close.size();
  if (sign == '-') {
    skip_space();
  } else if (sign != '+' && block && next_is("\n")) {
    ++at_;
  }
  return true;
}

Result<Unit> Lexer::tag(TokenKind begin, TokenKind end, std::string_view close) {
  const size_t start = tokens_.back().offset;
  open_.clear();
  while (at_ < source_.size()) {
    const size_t here = at_;
    if (open_.empty() && tag_ends(close)) {
      push(end, here);
      return Unit{};
    }
    skip_space();
    if (at_ == here) QUERN_TRY(token());
  }
  return error(start, fmt::format("the {} has no end: {} is missing",
                                  begin == TokenKind::kBlockBegin ? "tag" : "expression", close));
}

Result<Unit> Lexer::token() {
  const char c = source_[at_];
  if (is_digit(c) && QUERN_TRY(number_token())) return Unit{};
  if (is_name_byte(c) && !is_digit(c)) {
    const size_t start = at_;
    while (at_ < source_.size() && is_name_byte(source_[at_])) ++at_;
    push(TokenKind::kName, start, std::string(source_.substr(start, at_ - start)));
    return Unit{};
  }
  if (c == '\'' || c == '"') return string_token();
  return operator_token();
}

Result<bool> Lexer::number_token() {
  const bool after_dot = at_ > 0 && source_[at_ - 1] == '.';
  const size_t float_size = after_dot ? 0 : float_literal_size(source_.substr(at_));
  const size_t start = at_;
  if (float_size > 0) {
    push(TokenKind::kFloat, start);
    tokens_.back().real = parse_float_literal(source_.substr(start, float_size));
    at_ += float_size;
    return true;
  }
  const size_t size = integer_literal_size(source_.substr(at_));
  const std::optional<int64_t> value = parse_integer_literal(source_.substr(start, size));
  if (!value) return error(start, "the integer does not fit 64 bits");
  push(TokenKind::kInteger, start);
  tokens_.back().integer = *value;
  at_ += size;
  return true;
}

Result<Unit> Lexer::string_token() {
  const size_t start = at_;
  const char quote = source_[start];
  size_t end = start + 1;
  while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
  if (end >= source_.size()) return error(start, "the string has no end");
  std::string text;
  const std::string_view problem =
      unescape_string_literal(source_.substr(start + 1, end - start - 1), text);
  if (!problem.empty()) return error(start, std::string(problem));
  push(TokenKind::kString, start, std::move(text));
  at_ = end + 1;
  return Unit{};
}

Result<Unit> Lexer::operator_token() {
  static constexpr std::string_view kDouble[] = {"//", "**", "==", "!=", ">=", "<="};
  static constexpr std::string_view kSingle = "+-/*%~[](){}><=.:|,;";
  const std::string_view rest = source_.substr(at_);
  size_t size = 0;
  if (kSingle.find(rest[0]) != std::string_view::npos) size = 1;
  for (const std::string_view op : kDouble) {
    if (rest.starts_with(op)) size = 2;
  }
  if (size == 0) return error(at_, fmt::format("unexpected character '{}'", rest.substr(0, 1)));
  const char c = rest[0];
  if (size == 1 && (c == '(' || c == '[' || c == '{')) {
    open_.push_back(c == '(' ? ')' : c == '[' ? ']' : '}');
  } else if (c == ')' || c == ']' || c == '}') {
    if (open_.empty()) return error(at_, fmt::format("unexpected '{}'", c));
    if (open_.back() != c) {
      return error(at_, fmt::format("unexpected '{}', expected '{}'", c, open_.back()));
    }
    open_.pop_back();
  }
  push(TokenKind::kOperator, at_, std::string(rest.substr(0, size)));
  at_ += size;
  return Unit{};
}

}  // namespace

std::string normalize_newlines(std::string_view source) {
  std::string result;
  result.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      result.push_back(source[i]);
      continue;
    }
    result.push_back('\n');
    if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
  }
  if (result.ends_with('\n')) result.pop_back();
  return result;
}

Error syntax_error(std::string_view source, size_t offset, const std::string& message) {
  const std::string_view before = source.substr(0, offset);
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const auto column = 1 + code_points(before.substr(before.rfind('\n') + 1));
  return template_error(fmt::format("chat template line {} column {}: {}", line, column, message));
}

Result<std::vector<Token>> tokenize(std::string_view source) { return Lexer(source).run(); }

}  // namespace quern::jinja
