// Grammars as text, in the notation that llama.cpp's users know (GBNF).
//
//   root  ::= "yes" | "no, because " cause     # texts start at `root`
//   cause ::= [a-z ]+ "." | "(" root ")"
//
// A rule is a name (letters, digits, `_`, `-`), `::=` and alternatives between `|`, each a row of
// "text" in double quotes, classes as in regular expressions, `.` (any character), names and groups
// in parentheses, each with * + ? {n} {n,} or {n,m} behind it. Escapes: \n \r \t \" \\ \xHH \uHHHH
// \u{H}. `#` begins a comment. Line ends do not matter. A rule may not begin with itself.
#pragma once

#include <string_view>

#include "base/result.h"
#include "text/grammar_expression.h"

namespace quern {

// Adds the rules to `out`, which has rule 0 already, and returns a call of `root`. Errors:
// kInvalidArgument that names the line, for what is malformed, a rule that is missing or given
// twice.
Result<ExpressionId> ebnf_expression(std::string_view text, Expressions& out);

}  // namespace quern
