#include "model/target_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

namespace quern {

struct TargetPattern::Expression {
  std::unique_ptr<pcre2_code, decltype(&pcre2_code_free)> code{nullptr, pcre2_code_free};
  std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> match{nullptr,
                                                                            pcre2_match_data_free};
  std::unique_ptr<pcre2_match_context, decltype(&pcre2_match_context_free)> context{
      nullptr, pcre2_match_context_free};
};

TargetPattern::TargetPattern(TargetPattern&&) noexcept = default;
TargetPattern& TargetPattern::operator=(TargetPattern&&) noexcept = default;
TargetPattern::~TargetPattern() = default;

Result<TargetPattern> TargetPattern::parse(const std::string& text, std::string_view source) {
  constexpr std::string_view kPrefix = "re:";
  TargetPattern pattern;
  pattern.text_ = text;
  if (!text.starts_with(kPrefix)) return pattern;
  const std::string_view expression = std::string_view(text).substr(kPrefix.size());
  auto compiled = std::make_unique<Expression>();
  int error = 0;
  PCRE2_SIZE offset = 0;
  compiled->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expression.data()),
                                     expression.size(), PCRE2_ANCHORED, &error, &offset, nullptr));
  if (compiled->code == nullptr) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: \"{}\" is no valid regular expression at byte {}", source, text,
                             offset + kPrefix.size())};
  }
  compiled->match.reset(pcre2_match_data_create_from_pattern(compiled->code.get(), nullptr));
  compiled->context.reset(pcre2_match_context_create(nullptr));
  pcre2_set_match_limit(compiled->context.get(), kMaxMatchSteps);
  pattern.expression_ = std::move(compiled);
  return pattern;
}

bool TargetPattern::matches(const std::string& name, std::string_view type) const {
  if (expression_ == nullptr) return text_ == name || text_ == type;
  return pcre2_match(expression_->code.get(), reinterpret_cast<PCRE2_SPTR>(name.data()),
                     name.size(), 0, 0, expression_->match.get(), expression_->context.get()) >= 0;
}

}  // namespace quern
