// Unicode for tokenizers: UTF-8 that may be broken, the character classes that pretokenizers name,
// normal forms and lower case. Tables come from utf8proc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace quern {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

enum class Utf8Status {
  kComplete,    // one code point
  kInvalid,     // a maximal part that begins no code point (Unicode 15, section 3.9, U+FFFD)
  kIncomplete,  // the text ends within what may become a code point; at most 3 bytes
};

struct Utf8Part {
  Utf8Status status;
  size_t bytes;
};

// The first code point of `text`, which is not empty, or what stands in its place.
Utf8Part first_utf8_part(std::string_view text);

bool is_valid_utf8(std::string_view text);

// `text` with each maximal invalid part replaced by U+FFFD, as Python's errors="replace" does.
std::string replace_invalid_utf8(std::string_view text);

struct DecodedCodePoint {
  char32_t value;
  size_t bytes;
};

// The code point that starts at `text[0]`. Requires valid UTF-8, not empty.
DecodedCodePoint decode_code_point(std::string_view text);

// The code point that ends `text`. Requires valid UTF-8, not empty.
DecodedCodePoint decode_last_code_point(std::string_view text);

void append_code_point(char32_t code_point, std::string& out);

bool is_white_space(char32_t c);     // the property White_Space
bool is_numeric(char32_t c);         // Nd, Nl, No
bool is_punctuation(char32_t c);     // P* and ASCII symbols
bool is_mark(char32_t c);            // M*
bool is_word_character(char32_t c);  // \w: letters, marks, Nd, Pc and joiners

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

// Requires valid UTF-8. Linear but for the canonical order of marks, which is n log n.
std::string normalize_unicode(std::string_view text, NormalForm form);

// Full lower case of each code point by itself, as Rust's char::to_lowercase.
std::string lowercase_unicode(std::string_view text);

}  // namespace quern
