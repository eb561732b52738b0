// Regular expressions as expressions of a grammar: the regular part of ECMAScript's notation, which
// JSON schemas use.
//
// Supported: literals, `.` (no line end), classes with ranges and negation, \d \w \s and their
// negations (ASCII, as ECMAScript has them), \t \n \r \f \v \0 \xHH \uHHHH \u{H} \cX, groups
// (plain, `(?:`, named), `|`, and the quantifiers * + ? {n} {n,} {n,m}, lazy or not: what a text
// matches does not depend on it. `^` and `$` may begin and end the branches of the outermost `|`.
// Refused by name: backreferences, lookaround, flags, \b and \B, \p, anchors elsewhere.
#pragma once

#include <string_view>

#include "base/result.h"
#include "text/grammar_text.h"

namespace quern {

enum class RegexMatch {
  kWhole,   // the text as a whole, anchored or not
  kSearch,  // somewhere within the text, as "pattern" of JSON schema
};

struct RegexOptions {
  TextEncoding encoding = TextEncoding::kPlain;
  RegexMatch match = RegexMatch::kWhole;
};

// Errors: kInvalidArgument that names the byte, for what is malformed or refused.
Result<ExpressionId> regex_expression(std::string_view pattern,
                                      const RegexOptions& options,
                                      Expressions& out);

// A class in brackets, e.g. "[^a-z\n]", at text[at], which is moved behind it. Errors: as above.
Result<CodePointSet> parse_character_class(std::string_view text, size_t& at);

// The one character that an escape stands for, text[at] being behind its backslash; `at` is moved
// behind it. Errors: as above.
Result<char32_t> parse_escape(std::string_view text, size_t& at);

}  // namespace quern
