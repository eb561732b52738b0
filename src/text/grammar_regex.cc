#include "text/grammar_regex.h"

#include <optional>

#include <fmt/format.h>

#include "text/unicode.h"

namespace quern {
namespace {

constexpr int kMaxGroupDepth = 100;
constexpr int32_t kMaxRepeat = 100'000;  // larger counts exceed every limit of states

bool is_digit(char c) { return c >= '0' && c <= '9'; }

CodePointSet digits() {
  CodePointSet set;
  set.add('0', '9');
  return set;
}

CodePointSet word() {
  CodePointSet set = digits();
  set.add('a', 'z');
  set.add('A', 'Z');
  set.add('_');
  return set;
}

CodePointSet ascii_space() {
  CodePointSet set;
  set.add('\t', '\r');
  set.add(' ');
  return set;
}

// What \S leaves out: ECMAScript's white space and line ends.
CodePointSet all_space() {
  CodePointSet set = ascii_space();
  for (const char32_t c : {0x00A0U, 0x1680U, 0x2028U, 0x2029U, 0x202FU, 0x205FU, 0x3000U, 0xFEFFU})
    set.add(c);
  set.add(0x2000, 0x200A);
  return set;
}

CodePointSet line_ends() {
  CodePointSet set;
  for (const char32_t c : {0x0AU, 0x0DU, 0x2028U, 0x2029U}) set.add(c);
  return set;
}

class RegexParser {
 public:
  RegexParser(std::string_view text, size_t at, const RegexOptions& options, Expressions* out)
      : text_(text), at_(at), options_(options), out_(out) {}

  Result<ExpressionId> run();
  Result<CodePointSet> bracket();
  Result<char32_t> one_escaped();
  size_t at() const { return at_; }

 private:
  struct Quantifier {
    int32_t min = 1;
    int32_t max = 1;
  };

  bool done() const { return at_ == text_.size(); }
  char peek() const { return text_[at_]; }
  bool take(std::string_view wanted) {
    if (!text_.substr(at_).starts_with(wanted)) return false;
    at_ += wanted.size();
    return true;
  }

  Error wrong(std::string_view what) const {
    return {ErrorCode::kInvalidArgument, fmt::format("at byte {}: {}", at_, what)};
  }

  Result<ExpressionId> alternation(int depth);
  Result<ExpressionId> branch(int depth);
  Result<ExpressionId> atom(int depth);
  Result<ExpressionId> group(int depth);
  Result<std::optional<Quantifier>> quantifier();
  std::optional<Quantifier> braces();
  std::optional<int32_t> count();
  Result<CodePointSet> escape();
  Result<char32_t> escaped_character();
  Result<char32_t> hex(size_t digits);
  Result<char32_t> character();
  Result<std::pair<CodePointSet, std::optional<char32_t>>> class_member();

  std::string_view text_;
  size_t at_;
  RegexOptions options_;
  Expressions* out_;
};

Result<ExpressionId> RegexParser::run() {
  if (!is_valid_utf8(text_)) return wrong("not valid UTF-8");
  const ExpressionId whole = QUERN_TRY(alternation(0));
  if (!done()) return wrong("`)` without a group");
  return whole;
}

Result<ExpressionId> RegexParser::alternation(int depth) {
  if (depth > kMaxGroupDepth) return wrong("groups nested too deeply");
  std::vector<ExpressionId> branches;
  do {
    branches.push_back(QUERN_TRY(branch(depth)));
  } while (take("|"));
  return out_->choice(std::move(branches));
}

Result<ExpressionId> RegexParser::branch(int depth) {
  const bool search = options_.match == RegexMatch::kSearch && depth == 0;
  const auto anything = [&] {
    return out_->repeat(encode_set(CodePointSet::all(), options_.encoding, *out_), 0, kUnbounded);
  };
  std::vector<ExpressionId> parts;
  const bool anchored = depth == 0 && take("^");
  if (search && !anchored) parts.push_back(anything());
  bool ended = false;
  while (!done() && peek() != '|' && peek() != ')') {
    if (ended) return wrong("`$` is supported at the end of an outermost branch only");
    if (depth == 0 && take("$")) {
      ended = true;
      continue;
    }
    const ExpressionId part = QUERN_TRY(atom(depth));
    const std::optional<Quantifier> times = QUERN_TRY(quantifier());
    parts.push_back(times ? out_->repeat(part, times->min, times->max) : part);
  }
  if (search && !ended) parts.push_back(anything());
  return out_->sequence(std::move(parts));
}

Result<ExpressionId> RegexParser::group(int depth) {
  if (take("?")) {
    if (take("=") || take("!") || take("<=") || take("<!"))
      return wrong("lookaround is not supported");
    if (take("<") || take("P<")) {
      while (!done() && peek() != '>') ++at_;
      if (!take(">")) return wrong("a group's name without `>`");
    } else if (!take(":")) {
      return wrong("flags and special groups are not supported");
    }
  }
  const ExpressionId inside = QUERN_TRY(alternation(depth + 1));
  if (!take(")")) return wrong("a group without `)`");
  return inside;
}

Result<ExpressionId> RegexParser::atom(int depth) {
  switch (peek()) {
    case '(':
      ++at_;
      return group(depth);
    case '[':
      return encode_set(QUERN_TRY(bracket()), options_.encoding, *out_);
    case '.':
      ++at_;
      return encode_set(line_ends().complement(), options_.encoding, *out_);
    case '\\':
      ++at_;
      return encode_set(QUERN_TRY(escape()), options_.encoding, *out_);
    case '^':
      return wrong("`^` is supported at the start of an outermost branch only");
    case '$':
      return wrong("`$` is supported at the end of an outermost branch only");
    case '*':
    case '+':
    case '?':
      return wrong("nothing to repeat");
    default:
      return out_->literal(encode_code_point(QUERN_TRY(character()), options_.encoding));
  }
}

std::optional<int32_t> RegexParser::count() {
  if (done() || !is_digit(peek())) return std::nullopt;
  int32_t value = 0;
  for (; !done() && is_digit(peek()); ++at_) {
    if (value <= kMaxRepeat) value = value * 10 + (peek() - '0');
  }
  return value;
}

// {n}, {n,} or {n,m}; anything else in braces is text, and `at_` stays.
std::optional<RegexParser::Quantifier> RegexParser::braces() {
  const size_t begin = at_;
  if (take("{")) {
    if (const std::optional<int32_t> min = count()) {
      if (take("}")) return Quantifier{*min, *min};
      if (take(",}")) return Quantifier{*min, kUnbounded};
      if (take(",")) {
        const std::optional<int32_t> max = count();
        if (max && take("}")) return Quantifier{*min, *max};
      }
    }
  }
  at_ = begin;
  return std::nullopt;
}

Result<std::optional<RegexParser::Quantifier>> RegexParser::quantifier() {
  if (done()) return std::optional<Quantifier>();
  std::optional<Quantifier> found;
  if (take("*")) {
    found = {0, kUnbounded};
  } else if (take("+")) {
    found = {1, kUnbounded};
  } else if (take("?")) {
    found = {0, 1};
  } else {
    found = braces();
  }
  if (!found) return found;
  if (found->min > kMaxRepeat || found->max > kMaxRepeat)
    return wrong(fmt::format("a repeat count above {}", kMaxRepeat));
  if (found->max != kUnbounded && found->max < found->min)
    return wrong("a repeat whose most is below its least");
  if (take("+")) return wrong("possessive quantifiers are not supported");
  take("?");  // lazy: the same texts match
  if (!done() && (peek() == '*' || peek() == '+' || peek() == '?'))
    return wrong("a quantifier behind a quantifier");
  return found;
}

Result<char32_t> RegexParser::character() {
  const DecodedCodePoint c = decode_code_point(text_.substr(at_));
  at_ += c.bytes;
  return c.value;
}

Result<char32_t> RegexParser::hex(size_t digits) {
  char32_t value = 0;
  for (size_t i = 0; i < digits; ++i, ++at_) {
    const char c = done() ? '\0' : peek();
    if (is_digit(c)) {
      value = value * 16 + static_cast<char32_t>(c - '0');
    } else if ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F')) {
      value = value * 16 + static_cast<char32_t>((c | 0x20) - 'a' + 10);
    } else {
      return wrong("expected a hexadecimal digit");
    }
  }
  return value;
}

Result<char32_t> RegexParser::escaped_character() {
  if (done()) return wrong("`\\` at the end");
  const char c = peek();
  if (static_cast<unsigned char>(c) >= 0x80) return wrong("`\\` before this character");
  ++at_;
  switch (c) {
    case 't':
      return U'\t';
    case 'n':
      return U'\n';
    case 'r':
      return U'\r';
    case 'f':
      return U'\f';
    case 'v':
      return U'\v';
    case '0':
      if (!done() && is_digit(peek())) return wrong("octal escapes are not supported");
      return U'\0';
    case 'x':
      return hex(2);
    case 'c':
      if (done() || !((peek() | 0x20) >= 'a' && (peek() | 0x20) <= 'z'))
        return wrong("expected a letter behind `\\c`");
      return static_cast<char32_t>(text_[at_++] & 0x1F);
    case 'u': {
      if (!take("{")) return hex(4);
      size_t digits = 0;
      while (at_ + digits < text_.size() && text_[at_ + digits] != '}') ++digits;
      if (digits == 0 || digits > 6) return wrong("expected `\\u{` one to six digits `}`");
      const char32_t value = QUERN_TRY(hex(digits));
      if (!take("}") || value > 0x10FFFF) return wrong("no code point");
      return value;
    }
    default:
      if (is_digit(c) || c == 'k') return wrong("backreferences are not supported");
      if (c == 'b' || c == 'B') return wrong("word boundaries (`\\b`, `\\B`) are not supported");
      if (c == 'p' || c == 'P') return wrong("Unicode properties (`\\p`) are not supported");
      if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
        return wrong(fmt::format("the escape `\\{}` is not supported", c));
      return static_cast<char32_t>(c);
  }
}

// Behind the backslash.
Result<CodePointSet> RegexParser::escape() {
  switch (done() ? '\0' : peek()) {
    case 'd':
      ++at_;
      return digits();
    case 'D':
      ++at_;
      return digits().complement();
    case 'w':
      ++at_;
      return word();
    case 'W':
      ++at_;
      return word().complement();
    case 's':
      ++at_;
      return ascii_space();
    case 'S':
      ++at_;
      return all_space().complement();
    default:
      break;
  }
  CodePointSet set;
  set.add(QUERN_TRY(one_escaped()));
  return set;
}

Result<char32_t> RegexParser::one_escaped() {
  const char32_t c = QUERN_TRY(escaped_character());
  if (c >= 0xD800 && c < 0xE000) return wrong("surrogates are not supported: write `\\u{...}`");
  return c;
}

Result<std::pair<CodePointSet, std::optional<char32_t>>> RegexParser::class_member() {
  using Member = std::pair<CodePointSet, std::optional<char32_t>>;
  CodePointSet set;
  if (!take("\\")) {
    const char32_t c = QUERN_TRY(character());
    set.add(c);
    return Member{set, c};
  }
  if (take("b")) {
    set.add(U'\b');
    return Member{set, U'\b'};
  }
  if (take("-")) {
    set.add(U'-');
    return Member{set, U'-'};
  }
  set = QUERN_TRY(escape());
  const auto ranges = set.ranges();
  const bool one = ranges.size() == 1 && ranges[0].first == ranges[0].second;
  return Member{set, one ? std::optional<char32_t>(ranges[0].first) : std::nullopt};
}

Result<CodePointSet> RegexParser::bracket() {
  if (!take("[")) return wrong("expected `[`");
  const bool negated = take("^");
  CodePointSet set;
  while (!take("]")) {
    if (done()) return wrong("a class without `]`");
    const auto [low_set, low] = QUERN_TRY(class_member());
    const bool range =
        text_.substr(at_).starts_with("-") && at_ + 1 < text_.size() && text_[at_ + 1] != ']';
    if (!range) {
      set.add(low_set);
      continue;
    }
    take("-");
    const auto [high_set, high] = QUERN_TRY(class_member());
    if (!low || !high) return wrong("a range between classes");
    if (*high < *low) return wrong("a range whose end lies before its start");
    set.add(*low, *high);
  }
  return negated ? set.complement() : set;
}

}  // namespace

Result<ExpressionId> regex_expression(std::string_view pattern,
                                      const RegexOptions& options,
                                      Expressions& out) {
  return RegexParser(pattern, 0, options, &out).run();
}

Result<CodePointSet> parse_character_class(std::string_view text, size_t& at) {
  RegexParser parser(text, at, {}, nullptr);
  const CodePointSet set = QUERN_TRY(parser.bracket());
  at = parser.at();
  return set;
}

Result<char32_t> parse_escape(std::string_view text, size_t& at) {
  RegexParser parser(text, at, {}, nullptr);
  const char32_t c = QUERN_TRY(parser.one_escaped());
  at = parser.at();
  return c;
}

}  // namespace quern
