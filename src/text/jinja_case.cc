#include "text/jinja_case.h"

#include <algorithm>
#include <iterator>

#include <utf8proc.h>

namespace quern::jinja {
namespace {

constexpr char32_t kCapitalSigma = 0x3a3;
constexpr char32_t kSmallSigma = 0x3c3;
constexpr char32_t kFinalSigma = 0x3c2;

utf8proc_category_t category(char32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

// Characters whose capital form is several characters (Unicode SpecialCasing.txt, the ones that
// occur in running text).
struct Expansion {
  char32_t from;
  std::string_view upper, title;
};

constexpr Expansion kExpansions[] = {
    {0xdf, "SS", "Ss"},     {0x149, "\u02bcN", "\u02bcN"}, {0x1f0, "J\u030c", "J\u030c"},
    {0xfb00, "FF", "Ff"},   {0xfb01, "FI", "Fi"},          {0xfb02, "FL", "Fl"},
    {0xfb03, "FFI", "Ffi"}, {0xfb04, "FFL", "Ffl"},        {0xfb05, "ST", "St"},
    {0xfb06, "ST", "St"},
};

const Expansion* expansion_of(char32_t c) {
  const auto* found = std::find_if(std::begin(kExpansions), std::end(kExpansions),
                                   [&](const Expansion& e) { return e.from == c; });
  return found == std::end(kExpansions) ? nullptr : found;
}

std::string encoded(char32_t c) {
  std::string result;
  append_utf8(result, c);
  return result;
}

std::string upper(char32_t c) {
  if (c < 0x80) return std::string(1, static_cast<char>(c >= 'a' && c <= 'z' ? c - 32 : c));
  if (const Expansion* e = expansion_of(c)) return std::string(e->upper);
  return encoded(static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c))));
}

std::string title(char32_t c) {
  if (c < 0x80) return upper(c);
  if (const Expansion* e = expansion_of(c)) return std::string(e->title);
  return encoded(static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(c))));
}

bool lower_case(char32_t c) {
  if (c < 0x80) return c >= 'a' && c <= 'z';
  return category(c) == UTF8PROC_CATEGORY_LL ||
         (utf8proc_islower(static_cast<utf8proc_int32_t>(c)) != 0);
}

bool upper_case(char32_t c) {
  if (c < 0x80) return c >= 'A' && c <= 'Z';
  return category(c) == UTF8PROC_CATEGORY_LU ||
         (utf8proc_isupper(static_cast<utf8proc_int32_t>(c)) != 0);
}

bool has_case(char32_t c) {
  return lower_case(c) || upper_case(c) || category(c) == UTF8PROC_CATEGORY_LT;
}

bool case_ignorable(char32_t c) {
  switch (category(c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
      return true;
    default:
      break;
  }
  return c == '\'' || c == '.' || c == ':' || c == 0xb7 || c == 0x2018 || c == 0x2019;
}

// A sigma ends a word when a cased character precedes it and none follows (Unicode's Final_Sigma).
bool sigma_is_final(std::string_view bytes, size_t begin, size_t end) {
  bool cased_before = false;
  for (size_t i = 0; i < begin;) {
    const char32_t c = next_code_point(bytes, i);
    if (!case_ignorable(c)) cased_before = has_case(c);
  }
  if (!cased_before) return false;
  while (end < bytes.size()) {
    const char32_t c = next_code_point(bytes, end);
    if (!case_ignorable(c)) return !has_case(c);
  }
  return true;
}

std::string lower(char32_t c, std::string_view bytes, size_t begin, size_t end) {
  if (c < 0x80) return std::string(1, static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c));
  if (c == 0x130) return "i\u0307";
  if (c == kCapitalSigma) {
    return encoded(sigma_is_final(bytes, begin, end) ? kFinalSigma : kSmallSigma);
  }
  return encoded(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
}

enum class Case { kUpper, kLower, kTitle };

// Maps every character to the case that `choose(code point)` asks for.
template <typename Choose>
Result<Value> mapped(Runtime& runtime, const Str& text, Choose choose) {
  QUERN_TRY(runtime.step(text.length));
  TextBuilder out(runtime);
  for (size_t i = 0; i < text.bytes.size();) {
    const size_t begin = i;
    const char32_t c = next_code_point(text.bytes, i);
    switch (choose(c)) {
      case Case::kUpper:
        out.append_for(upper(c), text, begin);
        break;
      case Case::kTitle:
        out.append_for(title(c), text, begin);
        break;
      case Case::kLower:
        if (c == kCapitalSigma) QUERN_TRY(runtime.step(text.length));
        out.append_for(lower(c, text.bytes, begin, i), text, begin);
        break;
    }
  }
  return out.finish();
}

}  // namespace

Result<Value> to_upper(Runtime& runtime, const Str& text) {
  return mapped(runtime, text, [](char32_t) { return Case::kUpper; });
}

Result<Value> to_lower(Runtime& runtime, const Str& text) {
  return mapped(runtime, text, [](char32_t) { return Case::kLower; });
}

Result<Value> to_title(Runtime& runtime, const Str& text) {
  bool inside = false;
  return mapped(runtime, text, [&](char32_t c) {
    const Case wanted = inside ? Case::kLower : Case::kTitle;
    inside = has_case(c);
    return wanted;
  });
}

Result<Value> to_swapped(Runtime& runtime, const Str& text) {
  return mapped(runtime, text,
                [](char32_t c) { return upper_case(c) ? Case::kLower : Case::kUpper; });
}

Result<Value> to_capitalized(Runtime& runtime, const Str& text) {
  bool first = true;
  return mapped(runtime, text, [&](char32_t) {
    return std::exchange(first, false) ? Case::kTitle : Case::kLower;
  });
}

Result<Value> to_headline(Runtime& runtime, const Str& text) {
  bool start = true;
  return mapped(runtime, text, [&](char32_t c) {
    const bool separator =
        is_space(c) || (c < 0x80 && std::string_view("-({[<").find(static_cast<char>(c)) !=
                                        std::string_view::npos);
    const Case wanted = start ? Case::kUpper : Case::kLower;
    start = separator;
    return wanted;
  });
}

bool is_of(char32_t c, CharacterClass wanted) {
  const utf8proc_category_t kind = category(c);
  const bool alpha = kind == UTF8PROC_CATEGORY_LU || kind == UTF8PROC_CATEGORY_LL ||
                     kind == UTF8PROC_CATEGORY_LT || kind == UTF8PROC_CATEGORY_LM ||
                     kind == UTF8PROC_CATEGORY_LO;
  const bool decimal = kind == UTF8PROC_CATEGORY_ND;
  const bool superscript = c == 0xb2 || c == 0xb3 || c == 0xb9 || c == 0x2070 ||
                           (c >= 0x2074 && c <= 0x2079) || (c >= 0x2080 && c <= 0x2089) ||
                           (c >= 0x2460 && c <= 0x2468);
  const bool numeric =
      decimal || superscript || kind == UTF8PROC_CATEGORY_NL || kind == UTF8PROC_CATEGORY_NO;
  switch (wanted) {
    case CharacterClass::kAlpha:
      return alpha;
    case CharacterClass::kDigit:
      return decimal || superscript;
    case CharacterClass::kDecimal:
      return decimal;
    case CharacterClass::kNumeric:
      return numeric;
    case CharacterClass::kAlnum:
      return alpha || numeric;
    case CharacterClass::kSpace:
      return is_space(c);
  }
  return false;
}

namespace {

bool only_case(const Str& text, bool (*wanted)(char32_t)) {
  bool any = false;
  for (size_t i = 0; i < text.bytes.size();) {
    const char32_t c = next_code_point(text.bytes, i);
    if (!has_case(c)) continue;
    if (!wanted(c)) return false;
    any = true;
  }
  return any;
}

}  // namespace

bool is_lower(const Str& text) { return only_case(text, lower_case); }

bool is_upper(const Str& text) { return only_case(text, upper_case); }

}  // namespace quern::jinja
