// The names of modules that a compressed-tensors configuration speaks of: "Linear", a module path,
// or "re:" and a Python regular expression that the path begins with.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

namespace quern {

class TargetPattern {
 public:
  // Errors: kInvalidArgument for an expression that does not compile; `source` names the field.
  static Result<TargetPattern> parse(const std::string& text, std::string_view source);

  TargetPattern(TargetPattern&&) noexcept;
  TargetPattern& operator=(TargetPattern&&) noexcept;
  ~TargetPattern();

  // Whether the pattern means the module called `name` of class `type`. An expression that takes
  // more steps than kMaxMatchSteps does not match.
  bool matches(const std::string& name, std::string_view type) const;

  static constexpr uint32_t kMaxMatchSteps = 100'000;

 private:
  struct Expression;

  TargetPattern() = default;

  std::string text_;
  std::unique_ptr<Expression> expression_;  // nullptr for a plain name
};

}  // namespace quern
