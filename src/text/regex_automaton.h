// Deterministic automata over bytes, made from the expressions of a grammar by Thompson's
// construction and the subset construction. Time and size are bounded by a budget: no expression,
// however it is written, backtracks or runs away.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "text/grammar_expression.h"

namespace quern {

struct AutomatonEdge {
  uint8_t low = 0;  // bytes low to high, both included
  uint8_t high = 0;
  int32_t target = 0;
};

// Goes to `target` behind any text of the rule.
struct AutomatonCall {
  RuleId rule = 0;
  int32_t target = 0;
};

// Goes to `target` behind the special token.
struct AutomatonToken {
  int32_t token = 0;
  int32_t target = 0;
};

struct AutomatonState {
  std::vector<AutomatonEdge> edges;  // sorted and disjoint
  std::vector<AutomatonCall> calls;
  std::vector<AutomatonToken> tokens;
  bool accepting = false;
};

// State 0 is the start. Never without states.
struct Automaton {
  std::vector<AutomatonState> states;
};

// What may still be spent; shared by all automata of one grammar.
struct AutomatonBudget {
  int64_t states = 0;  // of automata, and four times as many on the way to them
  int64_t steps = 0;   // touched states and edges, about 10 ns each
};

struct AutomatonContext {
  const Expressions* expressions = nullptr;
  const std::vector<bool>* nullable = nullptr;  // rules that match the empty text
  const std::vector<bool>* inlined = nullptr;   // rules whose calls become their bodies
  ByteSet alphabet;                             // no other byte is ever said
};

// The automaton of an expression. Errors: kInvalidArgument when the budget is spent.
Result<Automaton> build_automaton(const AutomatonContext& context,
                                  ExpressionId expression,
                                  AutomatonBudget& budget);

// Which rules match the empty text. Errors: kInvalidArgument when the budget is spent.
Result<std::vector<bool>> nullable_rules(const Expressions& expressions, AutomatonBudget& budget);

// Rules worth writing out where they are called: small and made of such rules alone.
std::vector<bool> inlined_rules(const Expressions& expressions);

// Whether the automaton, which has neither calls nor tokens, matches the whole text.
bool matches(const Automaton& automaton, std::string_view text);

}  // namespace quern
