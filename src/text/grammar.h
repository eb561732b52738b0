// Grammars: what an answer must look like, as a JSON schema, a regular expression or a grammar's
// text, compiled to masks over the tokens of a vocabulary.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/grammar_matcher.h"
#include "text/grammar_program.h"
#include "text/grammar_trie.h"
#include "text/token_constraint.h"
#include "text/tool_grammar.h"

namespace quern {

// A compiled grammar for one vocabulary. Any number of threads may use one at once: token masks are
// computed on first use and kept, up to a limit. Shared by the requests that use it and the cache
// that keeps it, whichever lives longest.
class Grammar {
 public:
  Grammar(GrammarProgram program, std::shared_ptr<const TokenTrie> trie, size_t mask_bytes);
  Grammar(const Grammar&) = delete;
  Grammar& operator=(const Grammar&) = delete;
  ~Grammar();

  const GrammarProgram& program() const { return program_; }
  const TokenTrie& trie() const { return *trie_; }

  // The tokens that lead on from a state. `own` holds the mask where there is no room to keep it.
  const GrammarMask& mask(int32_t state, std::unique_ptr<const GrammarMask>& own) const;

  // Computes masks of states near the start until about `steps` nodes of the trie were walked.
  void prepare(int64_t steps) const;

  // Memory of the masks kept so far.
  size_t mask_bytes() const { return mask_bytes_.load(std::memory_order_relaxed); }

 private:
  GrammarProgram program_;
  std::shared_ptr<const TokenTrie> trie_;
  size_t mask_limit_;
  mutable std::atomic<size_t> mask_bytes_{0};
  mutable std::vector<std::atomic<const GrammarMask*>> masks_;  // by mask class; owned
};

// Where one answer stands in its grammar. Copies are independent and cheap: a few readings and
// their callers. Used by one thread at a time.
class GrammarMatcher {
 public:
  explicit GrammarMatcher(std::shared_ptr<const Grammar> grammar);

  // As those of TokenConstraint. A token is counted for every byte, and for every special token, of
  // the shortest end: each can be said alone, longer tokens only make it fewer.
  void fill_mask(std::span<uint32_t> mask);
  void fill_closing_mask(std::span<uint32_t> mask);
  int64_t distance() const { return stopped_ ? 0 : distance(current_); }
  int64_t distance_behind(int32_t token);

  // Goes on by one token. False, and nothing changes, where the grammar does not allow it.
  bool accept(int32_t token);

  // Whether the text may end here.
  bool may_end() const { return current_.can_end; }

  // Whether the text is complete: it may end and cannot go on, or a token ended it.
  bool ended() const { return stopped_ || (current_.can_end && current_.elements.empty()); }

 private:
  enum class Move { kNone, kOn, kEnd };

  // Where a token leads; `to` is where the text then stands, when it goes on.
  Move move(int32_t token, GrammarSet& to);
  int64_t distance(const GrammarSet& set) const;
  void add_closing_tokens(std::span<uint32_t> mask);
  void clear(std::span<uint32_t> mask) const;
  void add_mask(int32_t state, std::span<uint32_t> mask);
  void add_uncertain(std::span<uint32_t> mask);
  bool run(GrammarSet from, std::string_view bytes, GrammarSet& to);

  std::shared_ptr<const Grammar> grammar_;
  GrammarSimulator simulator_;
  GrammarSet current_;
  bool stopped_ = false;

  // Scratch of fill_mask().
  std::vector<int32_t> classes_;     // whose masks are in, sorted
  std::vector<uint32_t> uncertain_;  // sorted tokens of all readings
  std::vector<GrammarSet> path_;     // behind each byte of a token
  std::vector<size_t> path_stacks_;
};

std::unique_ptr<TokenConstraint> make_constraint(std::shared_ptr<const Grammar> grammar);

// Compiles for one vocabulary. Immutable: any number of threads may compile at once. Every error is
// kInvalidArgument, names what was given (`schema`, `regex`, `grammar`, `tools[i]`) and the place
// in it, and comes within the limits, whatever the input.
class GrammarCompiler {
 public:
  explicit GrammarCompiler(std::shared_ptr<const TokenTrie> trie, GrammarLimits limits = {})
      : trie_(std::move(trie)), limits_(limits) {}

  // JSON that validates against the schema; what is supported: json_schema.h.
  Result<std::shared_ptr<const Grammar>> json_schema(std::string_view schema) const;

  // Any JSON object.
  Result<std::shared_ptr<const Grammar>> json_object() const;

  // Texts that match the expression as a whole; what is supported: grammar_regex.h.
  Result<std::shared_ptr<const Grammar>> regex(std::string_view expression) const;

  // Texts of the rule `root`; the notation: grammar_ebnf.h.
  Result<std::shared_ptr<const Grammar>> ebnf(std::string_view grammar) const;

  // Calls of the functions in the dialect's envelope, arguments constrained by their schemas.
  Result<std::shared_ptr<const Grammar>> tool_calls(const ToolGrammarRequest& request) const;

 private:
  Result<std::shared_ptr<const Grammar>> finish(const Expressions& expressions,
                                                std::string_view what) const;
  Result<Unit> check_source(std::string_view text, std::string_view what) const;

  std::shared_ptr<const TokenTrie> trie_;
  GrammarLimits limits_;
};

}  // namespace quern
