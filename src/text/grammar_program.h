// A grammar as the matcher runs it: one flat automaton whose states call rules, every state able to
// reach the end of its rule, with what the token masks need to know about each state.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "text/grammar_expression.h"
#include "text/regex_automaton.h"

namespace quern {

// What one grammar may cost. Exceeding any is kInvalidArgument and names the limit.
struct GrammarLimits {
  size_t source_bytes = size_t{64} << 10;  // of the schema, the expression or the grammar's text
  size_t expressions = 200'000;            // parts, after references are followed
  size_t rules = 4096;
  int64_t states = 100'000;              // of all automata together, about 100 bytes each
  int64_t steps = 10'000'000;            // about 10 ns each
  int64_t prepare_steps = 4'000'000;     // trie nodes walked for masks ahead of use, 10 ns each
  size_t mask_bytes = size_t{32} << 20;  // of masks kept for reuse
};

struct GrammarCall {
  int32_t start = 0;   // of the called rule
  int32_t target = 0;  // where its text leads; kTailCall when the caller has nothing left to say
};

inline constexpr int32_t kTailCall = -1;

// Distances beyond are not told apart.
inline constexpr int32_t kGrammarFar = 1 << 30;

// Immutable after it is built.
class GrammarProgram {
 public:
  // No byte outside `alphabet` is ever said. Errors: kInvalidArgument for a grammar that matches no
  // text, is left-recursive or exceeds a limit.
  static Result<GrammarProgram> build(const Expressions& expressions,
                                      const ByteSet& alphabet,
                                      const GrammarLimits& limits);

  // Texts start here.
  int32_t start() const { return start_; }
  size_t state_count() const { return states_.size() - 1; }

  // The state behind one byte, or -1.
  int32_t step(int32_t state, uint8_t byte) const;

  std::span<const AutomatonEdge> edges(int32_t state) const {
    return {edges_.data() + at(state).edges, edges_.data() + at(state + 1).edges};
  }
  std::span<const GrammarCall> calls(int32_t state) const {
    return {calls_.data() + at(state).calls, calls_.data() + at(state + 1).calls};
  }
  std::span<const AutomatonToken> tokens(int32_t state) const {
    return {tokens_.data() + at(state).tokens, tokens_.data() + at(state + 1).tokens};
  }

  // Whether the state ends its rule.
  bool accepting(int32_t state) const { return at(state).accepting; }

  // The fewest bytes and special tokens from the state to the end of its rule; at most kGrammarFar.
  int32_t distance(int32_t state) const { return at(state).distance; }

  // Whether bytes alone lead on: neither calls nor the end of the rule.
  bool plain(int32_t state) const { return at(state).plain; }

  // The bytes that may follow the end of the state's rule, wherever it was called.
  const ByteSet& follow(int32_t state) const {
    return follow_[static_cast<size_t>(at(state).rule)];
  }

  // States of one class allow the same tokens of up to horizon() bytes.
  int32_t mask_class(int32_t state) const { return at(state).mask_class; }
  size_t mask_class_count() const { return mask_class_count_; }
  size_t horizon() const { return horizon_; }

 private:
  struct State {
    uint32_t edges = 0;  // where the state's part of each array begins
    uint32_t calls = 0;
    uint32_t tokens = 0;
    int32_t rule = 0;
    int32_t mask_class = 0;
    int32_t distance = kGrammarFar;
    bool accepting = false;
    bool plain = false;
  };

  friend class GrammarProgramBuilder;

  const State& at(int32_t state) const { return states_[static_cast<size_t>(state)]; }

  int32_t start_ = 0;
  std::vector<State> states_;  // one more than there are
  std::vector<AutomatonEdge> edges_;
  std::vector<GrammarCall> calls_;
  std::vector<AutomatonToken> tokens_;
  std::vector<ByteSet> follow_;  // by rule
  size_t mask_class_count_ = 0;
  size_t horizon_ = 0;
};

}  // namespace quern
