// Runs a grammar: sets of states with their stacks of callers, and which tokens lead on from them.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "text/grammar_program.h"
#include "text/grammar_trie.h"

namespace quern {

// The callers that wait below a state, as linked lists that share their tails. List 0 is empty.
// Lists that are equal have the same number.
class GrammarStacks {
 public:
  struct Frame {
    int32_t below = 0;
    int32_t state = 0;  // where the caller goes on
  };

  GrammarStacks();

  int32_t push(int32_t below, int32_t state);
  const Frame& frame(int32_t stack) const { return frames_[static_cast<size_t>(stack)]; }

  // Forgets the lists made since size() was `size`.
  size_t size() const { return frames_.size(); }
  void shrink(size_t size);

 private:
  size_t slot(const Frame& frame) const;
  void grow();

  std::vector<Frame> frames_;
  std::vector<int32_t> slots_;  // open addressing, a power of two; -1 is free
};

struct GrammarElement {
  int32_t state = 0;
  int32_t stack = 0;

  friend bool operator==(const GrammarElement&, const GrammarElement&) = default;
};

// Where a text may stand: all its readings at once.
struct GrammarSet {
  std::vector<GrammarElement> elements;  // those that can go on by bytes or special tokens
  bool can_end = false;                  // the text may end here
  ByteSet escapes;                       // what may follow below an unknown stack
};

// What lies below the empty stack.
enum class GrammarBottom {
  kEnd,      // the end of the text
  kUnknown,  // some caller; GrammarSet::escapes says what may follow it
};

// Readings beyond this many are dropped, which only narrows what an ambiguous grammar may say.
inline constexpr size_t kMaxGrammarElements = 1024;

// Scratch for moving sets; borrows the program. Copies are independent.
class GrammarSimulator {
 public:
  GrammarSimulator(const GrammarProgram& program, GrammarBottom bottom);

  // All readings from the start of a text.
  void start(GrammarSet& out);

  // The readings of `in` that go on by a byte, or by a special token. False when there are none;
  // `out` is then empty. `in` and `out` differ.
  bool step(const GrammarSet& in, uint8_t byte, GrammarSet& out);
  bool step_token(const GrammarSet& in, int32_t token, GrammarSet& out);

  GrammarStacks stacks;

 private:
  void close(GrammarSet& out);  // from work_
  bool visit(const GrammarElement& element);
  void fill_table();
  bool insert(const GrammarElement& element);

  const GrammarProgram* program_;
  GrammarBottom bottom_;
  std::vector<GrammarElement> work_;
  std::vector<GrammarElement> seen_;   // by close()
  std::vector<GrammarElement> table_;  // the same once they are many: open addressing
  std::vector<uint32_t> stamps_;       // an entry of table_ is valid where this is stamp_
  uint32_t stamp_ = 0;
};

// The tokens that lead on from a state whose callers are unknown.
struct GrammarMask {
  std::vector<uint32_t> bits;       // of the vocabulary, when there are many
  std::vector<int32_t> ids;         // when there are few
  std::vector<uint32_t> uncertain;  // sorted tokens that depend on the callers

  size_t bytes() const;
};

// `visited` grows by the number of trie nodes walked.
GrammarMask compute_mask(const GrammarProgram& program,
                         const TokenTrie& trie,
                         int32_t state,
                         int64_t& visited);

}  // namespace quern
