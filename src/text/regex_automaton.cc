#include "text/regex_automaton.h"

#include <algorithm>
#include <string>
#include <unordered_map>

#include <fmt/format.h>

#include "base/check.h"

namespace quern {
namespace {

constexpr int64_t kNondeterministicFactor = 4;
constexpr size_t kMaxInlinedSize = 64;  // states of a rule that is written out where it is called
constexpr int kMaxInlinedDepth = 4;     // such rules within such rules

Error out_of_states() {
  return {ErrorCode::kInvalidArgument,
          "too complex: its automaton needs more states than the limit allows"};
}

Error out_of_steps() {
  return {ErrorCode::kInvalidArgument,
          "too complex: compiling it needs more steps than the limit allows"};
}

enum class NfaEdgeKind : uint8_t { kEpsilon, kBytes, kCall, kToken };

struct NfaEdge {
  NfaEdgeKind kind;
  uint8_t low, high;
  int32_t symbol;  // rule or token
  int32_t target;
  int32_t next;  // of the same state; -1 ends
};

// A nondeterministic automaton with one start and one end.
struct Nfa {
  std::vector<int32_t> first;  // edge of each state; -1: none
  std::vector<NfaEdge> edges;

  int32_t add_state() {
    first.push_back(-1);
    return static_cast<int32_t>(first.size() - 1);
  }

  void add_edge(int32_t from, NfaEdge edge) {
    edge.next = first[static_cast<size_t>(from)];
    first[static_cast<size_t>(from)] = static_cast<int32_t>(edges.size());
    edges.push_back(edge);
  }

  void epsilon(int32_t from, int32_t to) {
    add_edge(from, {NfaEdgeKind::kEpsilon, 0, 0, 0, to, -1});
  }
};

// Thompson's construction. A fragment between two states adds no edge into the first nor out of the
// second, so that fragments may share their ends.
class NfaBuilder {
 public:
  NfaBuilder(const AutomatonContext& context, AutomatonBudget& budget)
      : context_(context), budget_(budget), limit_(budget.states * kNondeterministicFactor) {}

  Result<Unit> build(ExpressionId id, int32_t from, int32_t to);

  Nfa nfa;

 private:
  const Expressions& expressions() const { return *context_.expressions; }
  Result<Unit> spend();
  void add_bytes(const ByteSet& set, int32_t from, int32_t to);
  Result<Unit> literal(const std::string& text, int32_t from, int32_t to);
  Result<Unit> sequence(const Expression& e, int32_t from, int32_t to);
  Result<Unit> repeat(const Expression& e, int32_t from, int32_t to);
  Result<Unit> loop(ExpressionId body, int32_t from, int32_t to);
  Result<Unit> list(const ListItems& items, int32_t from, int32_t to);
  Result<Unit> product(const Expression& e, int32_t from, int32_t to);

  const AutomatonContext& context_;
  AutomatonBudget& budget_;
  int64_t limit_;
};

Result<Unit> NfaBuilder::spend() {
  if (static_cast<int64_t>(nfa.first.size()) > limit_) return out_of_states();
  if (--budget_.steps < 0) return out_of_steps();
  return Unit{};
}

void NfaBuilder::add_bytes(const ByteSet& set, int32_t from, int32_t to) {
  const ByteSet allowed = set & context_.alphabet;
  for (size_t low = 0; low < 256; ++low) {
    if (!allowed[low]) continue;
    size_t high = low;
    while (high + 1 < 256 && allowed[high + 1]) ++high;
    nfa.add_edge(from, {NfaEdgeKind::kBytes, static_cast<uint8_t>(low), static_cast<uint8_t>(high),
                        0, to, -1});
    low = high;
  }
}

Result<Unit> NfaBuilder::literal(const std::string& text, int32_t from, int32_t to) {
  for (size_t i = 0; i < text.size(); ++i) {
    QUERN_TRY(spend());
    const int32_t next = i + 1 == text.size() ? to : nfa.add_state();
    ByteSet set;
    set.set(static_cast<uint8_t>(text[i]));
    add_bytes(set, from, next);
    from = next;
  }
  return Unit{};
}

Result<Unit> NfaBuilder::sequence(const Expression& e, int32_t from, int32_t to) {
  for (size_t i = 0; i < e.children.size(); ++i) {
    const int32_t next = i + 1 == e.children.size() ? to : nfa.add_state();
    QUERN_TRY(build(e.children[i], from, next));
    from = next;
  }
  return Unit{};
}

Result<Unit> NfaBuilder::loop(ExpressionId body, int32_t from, int32_t to) {
  const int32_t head = nfa.add_state();
  const int32_t tail = nfa.add_state();
  nfa.epsilon(from, head);
  QUERN_TRY(build(body, head, tail));
  nfa.epsilon(tail, head);
  nfa.epsilon(head, to);
  return Unit{};
}

Result<Unit> NfaBuilder::repeat(const Expression& e, int32_t from, int32_t to) {
  const int32_t min = e.first;
  const int32_t max = e.second;
  for (int32_t i = 0; i < min; ++i) {
    const int32_t next = nfa.add_state();
    QUERN_TRY(build(e.children[0], from, next));
    from = next;
  }
  if (max == kUnbounded) return loop(e.children[0], from, to);
  for (int32_t i = min; i < max; ++i) {
    nfa.epsilon(from, to);
    const int32_t next = nfa.add_state();
    QUERN_TRY(build(e.children[0], from, next));
    from = next;
  }
  nfa.epsilon(from, to);
  return Unit{};
}

// Two states before each item: nothing said yet, or something. Each item is built once.
Result<Unit> NfaBuilder::list(const ListItems& items, int32_t from, int32_t to) {
  int32_t fresh = nfa.add_state();  // nothing said yet
  int32_t going = nfa.add_state();  // something said
  nfa.epsilon(from, fresh);
  for (size_t i = 0; i < items.items.size(); ++i) {
    const int32_t entry = nfa.add_state();
    const int32_t next_fresh = nfa.add_state();
    const int32_t next_going = nfa.add_state();
    nfa.epsilon(fresh, entry);
    QUERN_TRY(build(items.separator, going, entry));
    QUERN_TRY(build(items.items[i], entry, next_going));
    if (!items.required[i]) {
      nfa.epsilon(fresh, next_fresh);
      nfa.epsilon(going, next_going);
    }
    fresh = next_fresh;
    going = next_going;
  }
  if (items.extra != expressions().nothing()) {
    const int32_t entry = nfa.add_state();
    const int32_t exit = nfa.add_state();
    nfa.epsilon(fresh, entry);
    QUERN_TRY(build(items.separator, going, entry));
    QUERN_TRY(build(items.extra, entry, exit));
    nfa.epsilon(exit, going);
  }
  nfa.epsilon(fresh, to);
  nfa.epsilon(going, to);
  return Unit{};
}

Result<Unit> NfaBuilder::build(ExpressionId id, int32_t from, int32_t to) {
  QUERN_TRY(spend());
  const Expression& e = expressions().node(id);
  switch (e.kind) {
    case ExpressionKind::kNothing:
      return Unit{};
    case ExpressionKind::kEmpty:
      nfa.epsilon(from, to);
      return Unit{};
    case ExpressionKind::kLiteral:
      return literal(expressions().text(e), from, to);
    case ExpressionKind::kBytes:
      add_bytes(expressions().set(e), from, to);
      return Unit{};
    case ExpressionKind::kSequence:
      return sequence(e, from, to);
    case ExpressionKind::kChoice:
      for (const ExpressionId branch : e.children) QUERN_TRY(build(branch, from, to));
      return Unit{};
    case ExpressionKind::kRepeat:
      return repeat(e, from, to);
    case ExpressionKind::kList:
      return list(expressions().items(e), from, to);
    case ExpressionKind::kCall:
      if ((*context_.inlined)[static_cast<size_t>(e.first)])
        return build(expressions().rule_body(e.first), from, to);
      nfa.add_edge(from, {NfaEdgeKind::kCall, 0, 0, e.first, to, -1});
      if ((*context_.nullable)[static_cast<size_t>(e.first)]) nfa.epsilon(from, to);
      return Unit{};
    case ExpressionKind::kToken:
      nfa.add_edge(from, {NfaEdgeKind::kToken, 0, 0, e.first, to, -1});
      return Unit{};
    case ExpressionKind::kBoth:
    case ExpressionKind::kExcept:
      return product(e, from, to);
  }
  return Unit{};
}

// The subset construction.
class Determinizer {
 public:
  Determinizer(const Nfa& nfa, int32_t end, AutomatonBudget& budget)
      : nfa_(nfa), end_(end), budget_(budget), seen_(nfa.first.size(), 0) {}

  Result<Automaton> run(int32_t start);

 private:
  using Set = std::vector<int32_t>;

  struct HashSet {
    size_t operator()(const Set& set) const {
      uint64_t h = set.size();
      for (const int32_t s : set) {
        h = (h ^ static_cast<uint64_t>(s)) * 0x9E3779B97F4A7C15u;
        h ^= h >> 29;
      }
      return static_cast<size_t>(h);
    }
  };

  const NfaEdge& edge(int32_t e) const { return nfa_.edges[static_cast<size_t>(e)]; }
  int32_t first(int32_t s) const { return nfa_.first[static_cast<size_t>(s)]; }

  Set closure(Set targets);
  Result<int32_t> state_of(const Set& targets);
  Result<Unit> expand(int32_t state);
  Result<Unit> expand_bytes(const std::vector<NfaEdge>& edges, int32_t state);
  Result<Unit> expand_symbols(std::vector<NfaEdge> edges, int32_t state);

  const Nfa& nfa_;
  int32_t end_;
  AutomatonBudget& budget_;
  std::vector<uint32_t> seen_;
  uint32_t stamp_ = 0;
  std::unordered_map<Set, int32_t, HashSet> index_;
  std::vector<const Set*> sets_;  // of each state; keys of index_ stay where they are
  Automaton automaton_;
};

// What is reached without reading, sorted; states that only lead on are left out.
Determinizer::Set Determinizer::closure(Set targets) {
  ++stamp_;
  Set out;
  const auto visit = [&](int32_t s) {
    if (seen_[static_cast<size_t>(s)] == stamp_) return false;
    seen_[static_cast<size_t>(s)] = stamp_;
    return true;
  };
  std::erase_if(targets, [&](int32_t s) { return !visit(s); });
  while (!targets.empty()) {
    const int32_t s = targets.back();
    targets.pop_back();
    bool reads = s == end_;
    for (int32_t e = first(s); e >= 0; e = edge(e).next) {
      --budget_.steps;
      if (edge(e).kind != NfaEdgeKind::kEpsilon) {
        reads = true;
      } else if (visit(edge(e).target)) {
        targets.push_back(edge(e).target);
      }
    }
    if (reads) out.push_back(s);
  }
  std::sort(out.begin(), out.end());
  return out;
}

Result<int32_t> Determinizer::state_of(const Set& targets) {
  Set set = closure(targets);
  budget_.steps -= static_cast<int64_t>(4 + set.size());  // to look it up
  if (budget_.steps < 0) return out_of_steps();
  const auto [found, added] = index_.emplace(std::move(set), static_cast<int32_t>(sets_.size()));
  if (!added) return found->second;
  if (--budget_.states < 0) return out_of_states();
  sets_.push_back(&found->first);
  automaton_.states.emplace_back();
  automaton_.states.back().accepting =
      std::binary_search(found->first.begin(), found->first.end(), end_);
  return found->second;
}

Result<Unit> Determinizer::expand_bytes(const std::vector<NfaEdge>& edges, int32_t state) {
  std::vector<int> borders;
  for (const NfaEdge& e : edges) {
    borders.push_back(e.low);
    borders.push_back(e.high + 1);
  }
  std::sort(borders.begin(), borders.end());
  borders.erase(std::unique(borders.begin(), borders.end()), borders.end());
  budget_.steps -= static_cast<int64_t>(borders.size() * edges.size() / 8);
  std::vector<std::pair<Set, int32_t>> known;  // targets met before in this state
  for (size_t i = 0; i + 1 < borders.size(); ++i) {
    Set targets;
    for (const NfaEdge& e : edges) {
      if (e.low <= borders[i] && borders[i] <= e.high) targets.push_back(e.target);
    }
    if (targets.empty()) continue;
    const auto met = std::find_if(known.begin(), known.end(),
                                  [&](const auto& entry) { return entry.first == targets; });
    const int32_t target = met != known.end() ? met->second : QUERN_TRY(state_of(targets));
    if (met == known.end()) known.emplace_back(std::move(targets), target);
    auto& out = automaton_.states[static_cast<size_t>(state)].edges;
    const auto low = static_cast<uint8_t>(borders[i]);
    const auto high = static_cast<uint8_t>(borders[i + 1] - 1);
    if (!out.empty() && out.back().target == target && out.back().high + 1 == low) {
      out.back().high = high;
    } else {
      out.push_back({low, high, target});
    }
  }
  return Unit{};
}

Result<Unit> Determinizer::expand_symbols(std::vector<NfaEdge> edges, int32_t state) {
  const auto key = [](const NfaEdge& e) { return std::pair(e.kind, e.symbol); };
  std::stable_sort(edges.begin(), edges.end(),
                   [&](const NfaEdge& a, const NfaEdge& b) { return key(a) < key(b); });
  for (size_t i = 0; i < edges.size();) {
    Set targets;
    const size_t begin = i;
    for (; i < edges.size() && key(edges[i]) == key(edges[begin]); ++i)
      targets.push_back(edges[i].target);
    const int32_t target = QUERN_TRY(state_of(targets));
    AutomatonState& out = automaton_.states[static_cast<size_t>(state)];
    if (edges[begin].kind == NfaEdgeKind::kCall) {
      out.calls.push_back({edges[begin].symbol, target});
    } else {
      out.tokens.push_back({edges[begin].symbol, target});
    }
  }
  return Unit{};
}

Result<Unit> Determinizer::expand(int32_t state) {
  std::vector<NfaEdge> bytes;
  std::vector<NfaEdge> symbols;
  for (const int32_t s : *sets_[static_cast<size_t>(state)]) {
    for (int32_t e = first(s); e >= 0; e = edge(e).next) {
      if (edge(e).kind == NfaEdgeKind::kBytes) bytes.push_back(edge(e));
      if (edge(e).kind == NfaEdgeKind::kCall || edge(e).kind == NfaEdgeKind::kToken)
        symbols.push_back(edge(e));
    }
  }
  QUERN_TRY(expand_bytes(bytes, state));
  return expand_symbols(std::move(symbols), state);
}

Result<Automaton> Determinizer::run(int32_t start) {
  QUERN_TRY(state_of({start}));
  for (size_t state = 0; state < sets_.size(); ++state) {
    QUERN_TRY(expand(static_cast<int32_t>(state)));
  }
  return std::move(automaton_);
}

int32_t step(const Automaton& automaton, int32_t state, int byte) {
  if (state < 0) return -1;
  for (const AutomatonEdge& e : automaton.states[static_cast<size_t>(state)].edges) {
    if (e.low <= byte && byte <= e.high) return e.target;
  }
  return -1;
}

// States of two automata side by side; -1 stands for the one that has failed.
class Product {
 public:
  Product(const Automaton& a, const Automaton& b, ExpressionKind kind)
      : a_(a), b_(b), kind_(kind) {}

  Result<Automaton> run(AutomatonBudget& budget) {
    state_of({0, 0});
    for (size_t state = 0; state < pairs_.size(); ++state) {
      if (static_cast<int64_t>(pairs_.size()) > budget.states) return out_of_states();
      budget.steps -= 64;
      if (budget.steps < 0) return out_of_steps();
      expand(state);
    }
    return std::move(automaton_);
  }

 private:
  using Pair = std::pair<int32_t, int32_t>;

  static bool accepts(const Automaton& automaton, int32_t state) {
    return state >= 0 && automaton.states[static_cast<size_t>(state)].accepting;
  }

  int32_t state_of(Pair pair) {
    const uint64_t key = static_cast<uint64_t>(static_cast<uint32_t>(pair.first)) << 32 |
                         static_cast<uint32_t>(pair.second);
    const auto [found, added] = index_.emplace(key, static_cast<int32_t>(pairs_.size()));
    if (!added) return found->second;
    pairs_.push_back(pair);
    const bool in_b = accepts(b_, pair.second);
    automaton_.states.emplace_back();
    automaton_.states.back().accepting =
        accepts(a_, pair.first) && (kind_ == ExpressionKind::kBoth ? in_b : !in_b);
    return found->second;
  }

  void expand(size_t state) {
    const Pair pair = pairs_[state];
    for (const AutomatonEdge& e : a_.states[static_cast<size_t>(pair.first)].edges) {
      for (int low = e.low; low <= e.high;) {
        const int32_t other = step(b_, pair.second, low);
        int high = low;
        while (high < e.high && step(b_, pair.second, high + 1) == other) ++high;
        if (other >= 0 || kind_ == ExpressionKind::kExcept) {
          const int32_t target = state_of({e.target, other});
          automaton_.states[state].edges.push_back(
              {static_cast<uint8_t>(low), static_cast<uint8_t>(high), target});
        }
        low = high + 1;
      }
    }
  }

  const Automaton& a_;
  const Automaton& b_;
  ExpressionKind kind_;
  std::unordered_map<uint64_t, int32_t> index_;
  std::vector<Pair> pairs_;
  Automaton automaton_;
};

Result<Unit> NfaBuilder::product(const Expression& e, int32_t from, int32_t to) {
  AutomatonBudget budget = budget_;  // the parts do not count against the states of the whole
  const Automaton a = QUERN_TRY(build_automaton(context_, e.children[0], budget));
  const Automaton b = QUERN_TRY(build_automaton(context_, e.children[1], budget));
  const Automaton joined = QUERN_TRY(Product(a, b, e.kind).run(budget));
  budget_.steps = budget.steps;
  const auto base = static_cast<int32_t>(nfa.first.size());
  nfa.first.resize(nfa.first.size() + joined.states.size(), -1);
  nfa.epsilon(from, base);
  for (size_t s = 0; s < joined.states.size(); ++s) {
    QUERN_TRY(spend());
    const int32_t state = base + static_cast<int32_t>(s);
    for (const AutomatonEdge& edge : joined.states[s].edges) {
      nfa.add_edge(state, {NfaEdgeKind::kBytes, edge.low, edge.high, 0, base + edge.target, -1});
    }
    if (joined.states[s].accepting) nfa.epsilon(state, to);
  }
  return Unit{};
}

bool is_nullable(const Expressions& expressions, ExpressionId id, const std::vector<bool>& rules) {
  const Expression& e = expressions.node(id);
  const auto nullable = [&](ExpressionId child) { return is_nullable(expressions, child, rules); };
  switch (e.kind) {
    case ExpressionKind::kNothing:
    case ExpressionKind::kLiteral:
    case ExpressionKind::kBytes:
    case ExpressionKind::kToken:
      return false;
    case ExpressionKind::kEmpty:
      return true;
    case ExpressionKind::kSequence:
      return std::all_of(e.children.begin(), e.children.end(), nullable);
    case ExpressionKind::kChoice:
      return std::any_of(e.children.begin(), e.children.end(), nullable);
    case ExpressionKind::kRepeat:
      return e.first == 0 || nullable(e.children[0]);
    case ExpressionKind::kList: {
      const ListItems& list = expressions.items(e);
      for (size_t i = 0; i < list.items.size(); ++i) {
        if (list.required[i] && !nullable(list.items[i])) return false;
      }
      return true;
    }
    case ExpressionKind::kCall:
      return rules[static_cast<size_t>(e.first)];
    case ExpressionKind::kBoth:
      return nullable(e.children[0]) && nullable(e.children[1]);
    case ExpressionKind::kExcept:
      return nullable(e.children[0]) && !nullable(e.children[1]);
  }
  return false;
}

// About how many states the expression takes, with inlined rules written out; counts up to `limit`.
// `sizes` of rules: 0 where they are called.
size_t expanded_size(const Expressions& expressions,
                     ExpressionId id,
                     const std::vector<size_t>& sizes,
                     size_t limit) {
  const Expression& e = expressions.node(id);
  if (e.kind == ExpressionKind::kLiteral) return expressions.text(e).size();
  if (e.kind == ExpressionKind::kCall) {
    const size_t size = sizes[static_cast<size_t>(e.first)];
    return size == 0 ? limit : size;
  }
  size_t total = 1;
  for (const ExpressionId child : e.children) {
    if (total >= limit) return limit;
    total += expanded_size(expressions, child, sizes, limit - total);
  }
  if (e.kind != ExpressionKind::kRepeat) return std::min(total, limit);
  const auto times = static_cast<size_t>(std::max({e.first, e.second, 1}));
  return times > limit ? limit : std::min(total * times, limit);
}

}  // namespace

std::vector<bool> inlined_rules(const Expressions& expressions) {
  std::vector<size_t> sizes(expressions.rule_count());  // 0: called
  std::vector<bool> inlined(expressions.rule_count());
  for (int depth = 0; depth < kMaxInlinedDepth; ++depth) {
    const std::vector<size_t> known = sizes;
    for (size_t r = 0; r < sizes.size(); ++r) {
      if (inlined[r]) continue;
      const size_t size = expanded_size(expressions, expressions.rule_body(static_cast<RuleId>(r)),
                                        known, kMaxInlinedSize);
      inlined[r] = size < kMaxInlinedSize;
      if (inlined[r]) sizes[r] = size;
    }
  }
  return inlined;
}

Result<Automaton> build_automaton(const AutomatonContext& context,
                                  ExpressionId expression,
                                  AutomatonBudget& budget) {
  NfaBuilder builder(context, budget);
  const int32_t start = builder.nfa.add_state();
  const int32_t end = builder.nfa.add_state();
  QUERN_TRY(builder.build(expression, start, end));
  return Determinizer(builder.nfa, end, budget).run(start);
}

Result<std::vector<bool>> nullable_rules(const Expressions& expressions, AutomatonBudget& budget) {
  std::vector<bool> nullable(expressions.rule_count());
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t r = nullable.size(); r-- > 0;) {  // rules mostly call those behind them
      if (nullable[r]) continue;
      if (--budget.steps < 0) return out_of_steps();
      nullable[r] =
          is_nullable(expressions, expressions.rule_body(static_cast<RuleId>(r)), nullable);
      changed = changed || nullable[r];
    }
  }
  return nullable;
}

bool matches(const Automaton& automaton, std::string_view text) {
  int32_t state = 0;
  for (const char c : text) state = step(automaton, state, static_cast<uint8_t>(c));
  return state >= 0 && automaton.states[static_cast<size_t>(state)].accepting;
}

}  // namespace quern
