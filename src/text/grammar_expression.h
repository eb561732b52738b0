// What a grammar says before it becomes an automaton: expressions over bytes, with calls of rules.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/grammar_trie.h"

namespace quern {

using ExpressionId = int32_t;
using RuleId = int32_t;

inline constexpr int32_t kUnbounded = -1;  // of a repeat

enum class ExpressionKind : uint8_t {
  kNothing,   // matches no text
  kEmpty,     // matches the empty text
  kLiteral,   // text
  kBytes,     // one byte of a set
  kSequence,  // children in order
  kChoice,    // one of the children
  kRepeat,    // child 0, first to second times (kUnbounded)
  kList,      // see ListItems
  kCall,      // rule `first`
  kToken,     // the special token with id `first`
  kBoth,      // what both children match; they hold no calls, tokens or lists
  kExcept,    // what child 0 matches and child 1 does not; as kBoth
};

// Items in a fixed order, some of which may be left out, with a separator between those present;
// then any number of `extra` (kNothing: none) within [extra_min, extra_max].
struct ListItems {
  std::vector<ExpressionId> items;
  std::vector<bool> required;  // one for each item
  ExpressionId separator = 0;
  ExpressionId extra = 0;
};

struct Expression {
  ExpressionKind kind = ExpressionKind::kNothing;
  int32_t first = 0;
  int32_t second = 0;
  std::vector<ExpressionId> children;
};

// Owns the expressions of one grammar and its rules. Errors of size show as over_limit(): from then
// on every expression is `nothing()`, so that builders need to look only once.
class Expressions {
 public:
  explicit Expressions(size_t limit) : limit_(limit) { nodes_.push_back({}); }

  ExpressionId nothing() const { return 0; }
  ExpressionId empty();
  ExpressionId literal(std::string_view text);
  ExpressionId bytes(const ByteSet& set);
  ExpressionId byte_range(uint8_t low, uint8_t high);
  ExpressionId any_of_bytes(std::string_view bytes);
  ExpressionId sequence(std::vector<ExpressionId> parts);
  ExpressionId choice(std::vector<ExpressionId> branches);
  ExpressionId repeat(ExpressionId body, int32_t min, int32_t max);
  ExpressionId optional(ExpressionId body) { return choice({empty(), body}); }
  ExpressionId list(ListItems items);
  ExpressionId call(RuleId rule);
  ExpressionId token(int32_t id);
  ExpressionId both(ExpressionId a, ExpressionId b);
  ExpressionId except(ExpressionId a, ExpressionId b);

  const Expression& node(ExpressionId id) const { return nodes_[static_cast<size_t>(id)]; }
  const std::string& text(const Expression& literal) const {
    return texts_[static_cast<size_t>(literal.first)];
  }
  const ByteSet& set(const Expression& bytes) const {
    return sets_[static_cast<size_t>(bytes.first)];
  }
  const ListItems& items(const Expression& list) const {
    return lists_[static_cast<size_t>(list.first)];
  }

  // Rules are numbered from 0; rule 0 is where a text starts. A rule's body may be set later than
  // it is called.
  RuleId add_rule(std::string name);
  void set_rule(RuleId rule, ExpressionId body) { bodies_[static_cast<size_t>(rule)] = body; }
  size_t rule_count() const { return bodies_.size(); }
  ExpressionId rule_body(RuleId rule) const { return bodies_[static_cast<size_t>(rule)]; }
  const std::string& rule_name(RuleId rule) const { return names_[static_cast<size_t>(rule)]; }

  bool over_limit() const { return over_limit_; }

 private:
  ExpressionId add(Expression expression);

  size_t limit_;
  bool over_limit_ = false;
  std::vector<Expression> nodes_;
  std::vector<std::string> texts_;
  std::vector<ByteSet> sets_;
  std::vector<ListItems> lists_;
  std::vector<ExpressionId> bodies_;
  std::vector<std::string> names_;
};

}  // namespace quern
