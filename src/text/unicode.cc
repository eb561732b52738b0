#include "text/unicode.h"

#include <algorithm>
#include <array>
#include <vector>

#include <utf8proc.h>

#include "base/check.h"

namespace quern {
namespace {

struct LeadByte {
  uint8_t bytes;                   // length of the sequence; 0: begins none
  uint8_t second_min, second_max;  // range of the second byte (Unicode 15, table 3-7)
};

LeadByte lead_byte(uint8_t b) {
  if (b < 0x80) return {1, 0, 0};
  if (b < 0xC2) return {0, 0, 0};
  if (b < 0xE0) return {2, 0x80, 0xBF};
  if (b == 0xE0) return {3, 0xA0, 0xBF};
  if (b == 0xED) return {3, 0x80, 0x9F};  // no surrogates
  if (b < 0xF0) return {3, 0x80, 0xBF};
  if (b == 0xF0) return {4, 0x90, 0xBF};
  if (b < 0xF4) return {4, 0x80, 0xBF};
  if (b == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

utf8proc_category_t category(char32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

// Appends the decomposition of `c`; `out` grows by at most the longest decomposition.
void append_decomposition(char32_t c, utf8proc_option_t options, std::vector<int32_t>& out) {
  constexpr size_t kMaxDecomposition = 32;  // U+FDFA becomes 18
  std::array<int32_t, kMaxDecomposition> buffer;
  int boundary = 0;
  const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), buffer.data(),
                                             buffer.size(), options, &boundary);
  QUERN_CHECK(count >= 0 && static_cast<size_t>(count) <= buffer.size());
  out.insert(out.end(), buffer.begin(), buffer.begin() + count);
}

int combining_class(int32_t c) { return utf8proc_get_property(c)->combining_class; }

// Canonical ordering (Unicode 15, D109). A stable sort of each run of marks, where utf8proc's own
// is quadratic in the length of a run.
void order_marks(std::vector<int32_t>& points) {
  for (size_t i = 0; i < points.size();) {
    if (points[i] < 0x300 || combining_class(points[i]) == 0) {
      ++i;
      continue;
    }
    size_t end = i + 1;
    while (end < points.size() && combining_class(points[end]) != 0) ++end;
    std::stable_sort(points.begin() + static_cast<ptrdiff_t>(i),
                     points.begin() + static_cast<ptrdiff_t>(end),
                     [](int32_t a, int32_t b) { return combining_class(a) < combining_class(b); });
    i = end;
  }
}

}  // namespace

Utf8Part first_utf8_part(std::string_view text) {
  const LeadByte lead = lead_byte(static_cast<uint8_t>(text[0]));
  if (lead.bytes == 0) return {Utf8Status::kInvalid, 1};
  for (size_t i = 1; i < lead.bytes; ++i) {
    if (i >= text.size()) return {Utf8Status::kIncomplete, i};
    const auto b = static_cast<uint8_t>(text[i]);
    const uint8_t low = i == 1 ? lead.second_min : 0x80;
    const uint8_t high = i == 1 ? lead.second_max : 0xBF;
    if (b < low || b > high) return {Utf8Status::kInvalid, i};
  }
  return {Utf8Status::kComplete, lead.bytes};
}

bool is_valid_utf8(std::string_view text) {
  while (!text.empty()) {
    const Utf8Part part = first_utf8_part(text);
    if (part.status != Utf8Status::kComplete) return false;
    text.remove_prefix(part.bytes);
  }
  return true;
}

std::string replace_invalid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Utf8Part part = first_utf8_part(text);
    out +=
        part.status == Utf8Status::kComplete ? text.substr(0, part.bytes) : kReplacementCharacter;
    text.remove_prefix(part.bytes);
  }
  return out;
}

DecodedCodePoint decode_code_point(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<char32_t>(static_cast<uint8_t>(text[i])); };
  const char32_t b = byte(0);
  if (b < 0x80) return {b, 1};
  if (b < 0xE0) return {(b & 0x1F) << 6 | (byte(1) & 0x3F), 2};
  if (b < 0xF0) return {(b & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F), 3};
  return {(b & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F), 4};
}

DecodedCodePoint decode_last_code_point(std::string_view text) {
  size_t begin = text.size() - 1;
  while (begin > 0 && (static_cast<uint8_t>(text[begin]) & 0xC0) == 0x80) --begin;
  return decode_code_point(text.substr(begin));
}

void append_code_point(char32_t c, std::string& out) {
  const auto tail = [&](int shift) { out += static_cast<char>(0x80 | ((c >> shift) & 0x3F)); };
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | (c >> 6));
    tail(0);
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | (c >> 12));
    tail(6);
    tail(0);
  } else {
    out += static_cast<char>(0xF0 | (c >> 18));
    tail(12);
    tail(6);
    tail(0);
  }
}

bool is_white_space(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_numeric(char32_t c) {
  if (c < 0x80) return c >= '0' && c <= '9';
  const auto k = category(c);
  return k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO;
}

bool is_punctuation(char32_t c) {
  if (c < 0x80) {
    return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) ||
           (c >= 123 && c <= 126);
  }
  const auto k = category(c);
  return k >= UTF8PROC_CATEGORY_PC && k <= UTF8PROC_CATEGORY_PO;
}

bool is_mark(char32_t c) {
  const auto k = category(c);
  return k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_MC || k == UTF8PROC_CATEGORY_ME;
}

bool is_word_character(char32_t c) {
  if (c < 0x80) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
  }
  const auto k = category(c);
  const bool letter_number = k == UTF8PROC_CATEGORY_NL;  // alphabetic
  const bool circled_letter = (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
                              (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
  return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_ND) || letter_number ||
         circled_letter || k == UTF8PROC_CATEGORY_PC || c == 0x200C || c == 0x200D;
}

std::string normalize_unicode(std::string_view text, NormalForm form) {
  const bool ascii = std::all_of(text.begin(), text.end(), [](char c) { return (c & 0x80) == 0; });
  if (ascii) return std::string(text);
  const bool compose = form == NormalForm::kNfc || form == NormalForm::kNfkc;
  const bool compatibility = form == NormalForm::kNfkc || form == NormalForm::kNfkd;
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE |
                                                      (compatibility ? UTF8PROC_COMPAT : 0));
  std::vector<int32_t> points;
  points.reserve(text.size());
  while (!text.empty()) {
    const DecodedCodePoint c = decode_code_point(text);
    if (c.value < 0xA0) {
      points.push_back(static_cast<int32_t>(c.value));
    } else {
      append_decomposition(c.value, options, points);
    }
    text.remove_prefix(c.bytes);
  }
  order_marks(points);
  if (compose) {
    const auto count = utf8proc_normalize_utf32(
        points.data(), static_cast<utf8proc_ssize_t>(points.size()),
        static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    QUERN_CHECK(count >= 0);
    points.resize(static_cast<size_t>(count));
  }
  std::string out;
  for (const int32_t c : points) append_code_point(static_cast<char32_t>(c), out);
  return out;
}

std::string lowercase_unicode(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const DecodedCodePoint c = decode_code_point(text);
    if (c.value == 0x130) {  // the only lower case of two code points
      out += "i\xCC\x87";
    } else {
      append_code_point(
          static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c.value))), out);
    }
    text.remove_prefix(c.bytes);
  }
  return out;
}

}  // namespace quern
