// Upper and lower case as Python's str has them, and the classes of characters that its tests ask
// for.
#pragma once

#include "text/jinja_runtime.h"
#include "text/jinja_text.h"

namespace quern::jinja {

Result<Value> to_upper(Runtime& runtime, const Str& text);
Result<Value> to_lower(Runtime& runtime, const Str& text);
// str.title: a capital after everything that has no case.
Result<Value> to_title(Runtime& runtime, const Str& text);
Result<Value> to_swapped(Runtime& runtime, const Str& text);
// str.capitalize: the first character in title case, the rest in lower case.
Result<Value> to_capitalized(Runtime& runtime, const Str& text);
// Jinja2's filter title: a capital at the start and behind each of -([{< and white space.
Result<Value> to_headline(Runtime& runtime, const Str& text);

enum class CharacterClass { kAlpha, kDigit, kDecimal, kNumeric, kAlnum, kSpace };

bool is_of(char32_t code_point, CharacterClass wanted);

// islower and isupper: no character of the other case and at least one of this.
bool is_lower(const Str& text);
bool is_upper(const Str& text);

}  // namespace quern::jinja
