#include "text/grammar_expression.h"

namespace quern {

ExpressionId Expressions::add(Expression expression) {
  const size_t cost = 1 + expression.children.size() / 4;  // long lists cost what they hold
  if (over_limit_ || nodes_.size() + cost > limit_) {
    over_limit_ = true;
    return nothing();
  }
  nodes_.push_back(std::move(expression));
  return static_cast<ExpressionId>(nodes_.size() - 1);
}

ExpressionId Expressions::empty() { return add({ExpressionKind::kEmpty, 0, 0, {}}); }

ExpressionId Expressions::literal(std::string_view text) {
  if (text.empty()) return empty();
  texts_.emplace_back(text);
  return add({ExpressionKind::kLiteral, static_cast<int32_t>(texts_.size() - 1), 0, {}});
}

ExpressionId Expressions::bytes(const ByteSet& set) {
  if (set.none()) return nothing();
  sets_.push_back(set);
  return add({ExpressionKind::kBytes, static_cast<int32_t>(sets_.size() - 1), 0, {}});
}

ExpressionId Expressions::byte_range(uint8_t low, uint8_t high) {
  ByteSet set;
  for (int b = low; b <= high; ++b) set.set(static_cast<size_t>(b));
  return bytes(set);
}

ExpressionId Expressions::any_of_bytes(std::string_view bytes_in) {
  ByteSet set;
  for (const char c : bytes_in) set.set(static_cast<uint8_t>(c));
  return bytes(set);
}

ExpressionId Expressions::sequence(std::vector<ExpressionId> parts) {
  for (const ExpressionId part : parts) {
    if (part == nothing()) return nothing();
  }
  if (parts.empty()) return empty();
  if (parts.size() == 1) return parts[0];
  return add({ExpressionKind::kSequence, 0, 0, std::move(parts)});
}

ExpressionId Expressions::choice(std::vector<ExpressionId> branches) {
  std::erase(branches, nothing());
  if (branches.empty()) return nothing();
  if (branches.size() == 1) return branches[0];
  return add({ExpressionKind::kChoice, 0, 0, std::move(branches)});
}

ExpressionId Expressions::repeat(ExpressionId body, int32_t min, int32_t max) {
  if (max == 0 || (body == nothing() && min == 0)) return empty();
  if (body == nothing() || (max != kUnbounded && max < min)) return nothing();
  if (min == 1 && max == 1) return body;
  return add({ExpressionKind::kRepeat, min, max, {body}});
}

ExpressionId Expressions::list(ListItems items) {
  std::vector<ExpressionId> children = items.items;  // counted against the limit
  children.push_back(items.separator);
  children.push_back(items.extra);
  lists_.push_back(std::move(items));
  return add(
      {ExpressionKind::kList, static_cast<int32_t>(lists_.size() - 1), 0, std::move(children)});
}

ExpressionId Expressions::call(RuleId rule) { return add({ExpressionKind::kCall, rule, 0, {}}); }

ExpressionId Expressions::token(int32_t id) { return add({ExpressionKind::kToken, id, 0, {}}); }

ExpressionId Expressions::both(ExpressionId a, ExpressionId b) {
  if (a == nothing() || b == nothing()) return nothing();
  return add({ExpressionKind::kBoth, 0, 0, {a, b}});
}

ExpressionId Expressions::except(ExpressionId a, ExpressionId b) {
  if (a == nothing() || b == nothing()) return a;
  return add({ExpressionKind::kExcept, 0, 0, {a, b}});
}

RuleId Expressions::add_rule(std::string name) {
  bodies_.push_back(nothing());
  names_.push_back(std::move(name));
  return static_cast<RuleId>(bodies_.size() - 1);
}

}  // namespace quern
