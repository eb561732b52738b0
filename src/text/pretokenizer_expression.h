// The regular expressions of tokenizer files: written for Oniguruma, run by PCRE2 (JIT). Character
// classes are those of the Unicode version that PCRE2 was built with.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/function_ref.h"
#include "base/result.h"

namespace quern {

inline constexpr size_t kMaxExpressionBytes = size_t{16} << 10;
// Backtracking steps of one match, about 2 ns each.
inline constexpr uint32_t kExpressionMatchLimit = 10'000'000;

// `pattern` in PCRE2's syntax: Oniguruma's \s, \w, \d, \h, \v, \uHHHH and \b become what they mean
// there. Folding case of one character to several (ß and ss) is not done. Errors: kUnsupported for
// a construct that has no equal (nested classes, &&, recursion, options other than i); the message
// names it.
Result<std::string> translate_expression(std::string_view pattern);

// Immutable: any number of threads may match at once.
class PretokenizerExpression {
 public:
  // `source` names where the pattern stands. Errors: kInvalidArgument when it does not compile or
  // is longer than kMaxExpressionBytes, kUnsupported as translate_expression.
  static Result<PretokenizerExpression> compile(std::string_view pattern, std::string_view source);

  PretokenizerExpression(PretokenizerExpression&&) noexcept;
  PretokenizerExpression& operator=(PretokenizerExpression&&) noexcept;
  ~PretokenizerExpression();

  // Calls match(begin, end) for each match from left to right, none overlapping. Requires valid
  // UTF-8. Stops early where a match exceeds kExpressionMatchLimit.
  void for_each_match(std::string_view text,
                      FunctionRef<void(size_t begin, size_t end)> match) const;

 private:
  struct Compiled;
  explicit PretokenizerExpression(std::unique_ptr<Compiled> compiled);

  std::unique_ptr<Compiled> compiled_;
};

}  // namespace quern
