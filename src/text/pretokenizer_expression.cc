#include "text/pretokenizer_expression.h"

#include <array>
#include <optional>
#include <utility>
#include <vector>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include "base/check.h"

namespace quern {
namespace {

// White_Space. PCRE2's own \s also holds U+180E, which lost the property.
constexpr std::string_view kSpace =
    R"(\t-\r \x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";
// Oniguruma's word characters, among them the superscripts and fractions of Latin-1. PCRE2's own
// \w lacks marks and connectors.
constexpr std::string_view kWord =
    R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{B2}\x{B3}\x{B9}\x{BC}-\x{BE})";
constexpr std::string_view kHexDigit = "0-9A-Fa-f";

// Long names of general categories, which PCRE2 does not know.
constexpr std::array<std::pair<std::string_view, std::string_view>, 7> kCategoryNames = {{
    {"Letter", "L"},
    {"Mark", "M"},
    {"Number", "N"},
    {"Punctuation", "P"},
    {"Symbol", "S"},
    {"Separator", "Z"},
    {"Other", "C"},
}};

// Scripts by their property Script, as Oniguruma takes them; PCRE2 takes Script_Extensions.
constexpr std::array<std::string_view, 14> kScripts = {
    "Arabic", "Armenian", "Bengali", "Common",   "Cyrillic", "Devanagari", "Greek",
    "Han",    "Hangul",   "Hebrew",  "Hiragana", "Katakana", "Latin",      "Thai"};

bool is_ascii_letter_or_digit(char c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

bool is_hex(char c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'F') || (c >= 'a' && c <= 'f');
}

class Translator {
 public:
  explicit Translator(std::string_view pattern) : pattern_(pattern) {}

  Result<std::string> translate() {
    while (at_ < pattern_.size()) {
      const char c = pattern_[at_];
      if (c == '\\') {
        atom_ = out_.size();
        QUERN_TRY(escape(Place::kOutside));
      } else if (c == '[') {
        atom_ = out_.size();
        QUERN_TRY(character_class());
      } else if (c == '(') {
        QUERN_TRY(open_group());
      } else if (c == ')') {
        close_group();
      } else if (c == '{') {
        interval();
      } else {
        if (c != '?' && c != '*' && c != '+' && (c & 0xC0) != 0x80) atom_ = out_.size();
        out_ += c;
        ++at_;
      }
    }
    return out_;
  }

 private:
  enum class Place { kOutside, kInClass };

  Error unsupported(std::string_view construct) const {
    return {ErrorCode::kUnsupported,
            fmt::format("expression uses {} at byte {}, which is not supported", construct, at_)};
  }

  void set(std::string_view members, Place place, std::string_view open) {
    if (place == Place::kInClass) {
      out_ += members;
    } else {
      out_ += fmt::format("{}{}]", open, members);
    }
  }

  Result<Unit> escape(Place place) {
    if (at_ + 1 >= pattern_.size()) return unsupported("a backslash at its end");
    const char c = pattern_[at_ + 1];
    const bool outside = place == Place::kOutside;
    switch (c) {
      case 's':
        set(kSpace, place, "[");
        break;
      case 'w':
        set(kWord, place, "[");
        break;
      case 'h':
        set(kHexDigit, place, "[");
        break;
      case 'd':
        out_ += "\\p{Nd}";
        break;
      case 'D':
        out_ += "\\P{Nd}";
        break;
      case 'S':
        out_ += "\\P{White_Space}";
        break;
      case 'v':
        out_ += "\\x0B";
        break;
      case 'W':
      case 'H':
        if (!outside) return unsupported(fmt::format("\\{} in a class", c));
        set(c == 'W' ? kWord : kHexDigit, place, "[^");
        break;
      case 'b':
      case 'B':
        if (outside) {
          word_boundary(c == 'b' ? "" : "!");
        } else {
          out_ += "\\x08";
        }
        break;
      case 'p':
      case 'P':
        return property();
      case 'u':
        return four_hex_digits();
      case 'x':
        return hex_escape();
      default:
        return plain_escape(c, place);
    }
    at_ += 2;
    return Unit{};
  }

  void word_boundary(std::string_view negation) {
    const std::string w = fmt::format("[{}]", kWord);
    out_ += negation.empty() ? fmt::format("(?:(?<={0})(?!{0})|(?<!{0})(?={0}))", w)
                             : fmt::format("(?:(?<={0})(?={0})|(?<!{0})(?!{0}))", w);
  }

  Result<Unit> property() {
    const size_t close = pattern_.find('}', at_);
    if (at_ + 2 >= pattern_.size() || pattern_[at_ + 2] != '{' || close == std::string_view::npos)
      return unsupported("\\p without {name}");
    std::string_view name = pattern_.substr(at_ + 3, close - at_ - 3);
    out_ += pattern_.substr(at_, 3);
    if (name.starts_with('^')) {
      out_ += '^';
      name.remove_prefix(1);
    }
    for (const auto& [longer, shorter] : kCategoryNames)
      if (name == longer) name = shorter;
    for (const std::string_view script : kScripts)
      if (name == script) out_ += "sc:";
    out_ += name;
    out_ += '}';
    at_ = close + 1;
    return Unit{};
  }

  Result<Unit> four_hex_digits() {
    const std::string_view digits = pattern_.substr(at_ + 2, 4);
    if (digits.size() != 4) return unsupported("\\u without four hexadecimal digits");
    for (const char c : digits)
      if (!is_hex(c)) return unsupported("\\u without four hexadecimal digits");
    out_ += fmt::format("\\x{{{}}}", digits);
    at_ += 6;
    return Unit{};
  }

  Result<Unit> hex_escape() {
    if (at_ + 2 < pattern_.size() && pattern_[at_ + 2] == '{') {
      const size_t close = pattern_.find('}', at_);
      if (close == std::string_view::npos) return unsupported("\\x{ without }");
      out_ += pattern_.substr(at_, close + 1 - at_);
      at_ = close + 1;
      return Unit{};
    }
    size_t end = at_ + 2;
    while (end < pattern_.size() && end < at_ + 4 && is_hex(pattern_[end])) ++end;
    if (end == at_ + 2) return unsupported("\\x without hexadecimal digits");
    out_ += pattern_.substr(at_, end - at_);
    at_ = end;
    return Unit{};
  }

  Result<Unit> plain_escape(char c, Place place) {
    constexpr std::string_view kSame = "nrtfae0";              // in both, everywhere
    constexpr std::string_view kSameOutside = "AzZ123456789";  // assertions and references
    const bool known = !is_ascii_letter_or_digit(c) || kSame.find(c) != std::string_view::npos ||
                       (place == Place::kOutside && kSameOutside.find(c) != std::string_view::npos);
    if (!known) return unsupported(fmt::format("\\{}", c));
    out_ += '\\';
    if ((c & 0x80) != 0) out_.pop_back();  // a character beyond ASCII needs no backslash
    out_ += c;
    at_ += 2;
    return Unit{};
  }

  Result<Unit> character_class() {
    out_ += '[';
    ++at_;
    if (at_ < pattern_.size() && pattern_[at_] == '^') {
      out_ += '^';
      ++at_;
    }
    bool first = true;
    while (at_ < pattern_.size() && (first || pattern_[at_] != ']')) {
      first = false;
      const char c = pattern_[at_];
      if (c == '\\') {
        QUERN_TRY(escape(Place::kInClass));
        continue;
      }
      if (c == '[') return unsupported("a class within a class");
      if (pattern_.substr(at_, 2) == "&&") return unsupported("the class intersection &&");
      out_ += c;
      ++at_;
    }
    if (at_ >= pattern_.size()) return unsupported("[ without ]");
    out_ += ']';
    ++at_;
    return Unit{};
  }

  Result<Unit> open_group() {
    constexpr std::array<std::string_view, 8> kKnown = {
        "(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?-i:"};
    const std::string_view rest = pattern_.substr(at_);
    std::string_view open = "(";
    if (rest.starts_with("(?i)")) {
      out_ += "(?i)";
      at_ += 4;
      return Unit{};
    }
    if (rest.starts_with("(*")) return unsupported("(*");
    if (rest.starts_with("(?")) {
      open = {};
      for (const std::string_view known : kKnown)
        if (rest.starts_with(known)) open = known;
      if (open.empty()) {
        return unsupported(
            "a group that opens otherwise than (?: (?= (?! (?<= (?<! (?> (?i: (?-i:");
      }
    }
    groups_.push_back(out_.size());
    out_ += open;
    at_ += open.size();
    return Unit{};
  }

  void close_group() {
    if (!groups_.empty()) {
      atom_ = groups_.back();
      groups_.pop_back();
    }
    out_ += ')';
    ++at_;
  }

  // {n,m}: in Oniguruma {,m} means {0,m}, and a + behind it repeats it instead of making it
  // possessive.
  void interval() {
    size_t end = at_ + 1;
    while (end < pattern_.size() &&
           (pattern_[end] == ',' || (pattern_[end] >= '0' && pattern_[end] <= '9'))) {
      ++end;
    }
    const bool closed = end < pattern_.size() && pattern_[end] == '}' && end > at_ + 1;
    if (!closed) {
      atom_ = out_.size();
      out_ += "\\{";
      ++at_;
      return;
    }
    const std::string_view bounds = pattern_.substr(at_ + 1, end - at_ - 1);
    out_ += fmt::format("{{{}{}}}", bounds.starts_with(',') ? "0" : "", bounds);
    at_ = end + 1;
    if (at_ < pattern_.size() && pattern_[at_] == '+') {
      out_.insert(atom_, "(?:");
      out_ += ')';
    }
  }

  std::string_view pattern_;
  size_t at_ = 0;
  std::string out_;
  size_t atom_ = 0;             // where the last atom starts in out_
  std::vector<size_t> groups_;  // where the open groups start in out_
};

constexpr size_t kJitStackMinBytes = size_t{32} << 10;
constexpr size_t kJitStackMaxBytes = size_t{8} << 20;
constexpr uint32_t kMatchHeapKib = 64 << 10;

struct JitStackDelete {
  void operator()(pcre2_jit_stack* stack) const { pcre2_jit_stack_free(stack); }
};

// One stack for each thread that matches; PCRE2 grows it on demand.
pcre2_jit_stack* thread_jit_stack(void*) {
  thread_local const std::unique_ptr<pcre2_jit_stack, JitStackDelete> stack(
      pcre2_jit_stack_create(kJitStackMinBytes, kJitStackMaxBytes, nullptr));
  return stack.get();
}

struct MatchDataDelete {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR, 256> buffer{};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

}  // namespace

struct PretokenizerExpression::Compiled {
  pcre2_code* code = nullptr;
  pcre2_match_context* context = nullptr;
  bool jit = false;

  Compiled() = default;
  Compiled(const Compiled&) = delete;
  Compiled& operator=(const Compiled&) = delete;

  ~Compiled() {
    pcre2_match_context_free(context);
    pcre2_code_free(code);
  }
};

PretokenizerExpression::PretokenizerExpression(std::unique_ptr<Compiled> compiled)
    : compiled_(std::move(compiled)) {}
PretokenizerExpression::PretokenizerExpression(PretokenizerExpression&&) noexcept = default;
PretokenizerExpression& PretokenizerExpression::operator=(PretokenizerExpression&&) noexcept =
    default;
PretokenizerExpression::~PretokenizerExpression() = default;

Result<std::string> translate_expression(std::string_view pattern) {
  return Translator(pattern).translate();
}

Result<PretokenizerExpression> PretokenizerExpression::compile(std::string_view pattern,
                                                               std::string_view source) {
  if (pattern.size() > kMaxExpressionBytes) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: expression of {} bytes; at most {} are allowed", source,
                             pattern.size(), kMaxExpressionBytes)};
  }
  Result<std::string> translated = translate_expression(pattern);
  if (!translated) {
    Error error = std::move(translated).error();
    error.message = fmt::format("{}: {}", source, error.message);
    return error;
  }
  auto compiled = std::make_unique<Compiled>();
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  QUERN_CHECK(context != nullptr);
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  int code = 0;
  PCRE2_SIZE offset = 0;
  // MULTILINE: Ruby's syntax, which Oniguruma follows, always lets ^ and $ match at lines.
  compiled->code = pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(translated->data()), translated->size(),
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &code, &offset, context);
  pcre2_compile_context_free(context);
  if (compiled->code == nullptr) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: expression does not compile: {}", source, pcre2_message(code))};
  }
  compiled->jit = pcre2_jit_compile(compiled->code, PCRE2_JIT_COMPLETE) == 0;
  compiled->context = pcre2_match_context_create(nullptr);
  QUERN_CHECK(compiled->context != nullptr);
  pcre2_set_match_limit(compiled->context, kExpressionMatchLimit);
  pcre2_set_heap_limit(compiled->context, kMatchHeapKib);
  pcre2_jit_stack_assign(compiled->context, thread_jit_stack, nullptr);
  return PretokenizerExpression(std::move(compiled));
}

void PretokenizerExpression::for_each_match(
    std::string_view text, FunctionRef<void(size_t begin, size_t end)> match) const {
  const std::unique_ptr<pcre2_match_data, MatchDataDelete> data(
      pcre2_match_data_create(1, nullptr));
  QUERN_CHECK(data != nullptr);
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(data.get());
  size_t start = 0;
  std::optional<size_t> last_end;
  while (start <= text.size()) {
    // pcre2_jit_match leaves out the check of the whole subject, which would make this quadratic.
    int rc = compiled_->jit ? pcre2_jit_match(compiled_->code, subject, text.size(), start, 0,
                                              data.get(), compiled_->context)
                            : PCRE2_ERROR_JIT_STACKLIMIT;
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
      rc = pcre2_match(compiled_->code, subject, text.size(), start,
                       PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data.get(), compiled_->context);
    }
    if (rc < 0) return;  // no match, or a limit
    const size_t begin = bounds[0];
    const size_t end = bounds[1];
    if (end < begin) return;
    const bool empty_after_match = begin == end && last_end == end;
    if (!empty_after_match) match(begin, end);
    last_end = end;
    start = end;
    if (begin == end) {  // go on behind the next code point
      if (end >= text.size()) return;
      ++start;
      while (start < text.size() && (static_cast<uint8_t>(text[start]) & 0xC0) == 0x80) ++start;
    }
  }
}

}  // namespace quern
