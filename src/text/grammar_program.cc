#include "text/grammar_program.h"

#include <algorithm>
#include <limits>
#include <queue>
#include <unordered_map>

#include <fmt/format.h>

namespace quern {
namespace {

// Tokens longer than this are tried one by one in states that differ only beyond it: the states of
// a long bounded text then share a few masks.
constexpr int kMaskHorizonBytes = 32;

constexpr int32_t kDead = -1;

Error invalid(std::string message) { return {ErrorCode::kInvalidArgument, std::move(message)}; }

Error out_of_steps() {
  return invalid("too complex: compiling it needs more steps than the limit allows");
}

uint64_t mix(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9E3779B97F4A7C15u;
  return hash ^ (hash >> 31);
}

}  // namespace

class GrammarProgramBuilder {
 public:
  GrammarProgramBuilder(const Expressions& expressions, const ByteSet& alphabet)
      : expressions_(expressions), alphabet_(alphabet) {}

  Result<GrammarProgram> run(const GrammarLimits& limits);

 private:
  Result<Unit> build_automata();
  Result<Unit> find_distances();
  void drop_dead();
  Result<Unit> refuse_left_recursion() const;
  Result<Unit> visit_left(RuleId rule, std::vector<uint8_t>& colour) const;
  void flatten();
  Result<Unit> find_follow();
  Result<Unit> find_classes();
  std::vector<std::vector<int32_t>> sources() const;
  std::vector<int32_t> split_classes(const std::vector<int32_t>& dirty,
                                     std::vector<int32_t>& classes,
                                     std::vector<int32_t>& size,
                                     int32_t& count) const;
  uint64_t signature(int32_t state, const std::vector<int32_t>& classes) const;

  size_t rule_count() const { return expressions_.rule_count(); }
  ByteSet first_bytes(int32_t state) const;

  const Expressions& expressions_;
  const ByteSet& alphabet_;
  AutomatonBudget budget_;
  std::vector<Automaton> automata_;              // by rule
  std::vector<std::vector<int32_t>> distances_;  // by rule and state; kDead: no text ends there
  std::vector<int32_t> rule_of_call_;            // beside program_.calls_
  std::vector<int32_t> start_of_rule_;
  GrammarProgram program_;
};

Result<GrammarProgram> GrammarProgram::build(const Expressions& expressions,
                                             const ByteSet& alphabet,
                                             const GrammarLimits& limits) {
  return GrammarProgramBuilder(expressions, alphabet).run(limits);
}

int32_t GrammarProgram::step(int32_t state, uint8_t byte) const {
  const std::span<const AutomatonEdge> all = edges(state);
  if (all.size() <= 4) {
    for (const AutomatonEdge& e : all) {
      if (e.low <= byte && byte <= e.high) return e.target;
    }
    return -1;
  }
  const auto behind =
      std::upper_bound(all.begin(), all.end(), byte,
                       [](uint8_t wanted, const AutomatonEdge& e) { return wanted < e.low; });
  if (behind == all.begin() || std::prev(behind)->high < byte) return -1;
  return std::prev(behind)->target;
}

Result<GrammarProgram> GrammarProgramBuilder::run(const GrammarLimits& limits) {
  if (expressions_.over_limit()) {
    return invalid(fmt::format("too large: more than {} parts", limits.expressions));
  }
  if (rule_count() > limits.rules) {
    return invalid(fmt::format("too large: {} rules, at most {}", rule_count(), limits.rules));
  }
  budget_ = {limits.states, limits.steps};
  QUERN_TRY(build_automata());
  QUERN_TRY(find_distances());
  if (distances_[0][0] == kDead) return invalid("matches no text at all");
  drop_dead();
  QUERN_TRY(refuse_left_recursion());
  flatten();
  QUERN_TRY(find_follow());
  QUERN_TRY(find_classes());
  return std::move(program_);
}

Result<Unit> GrammarProgramBuilder::build_automata() {
  const std::vector<bool> nullable = QUERN_TRY(nullable_rules(expressions_, budget_));
  const std::vector<bool> inlined = inlined_rules(expressions_);
  const AutomatonContext context = {&expressions_, &nullable, &inlined, alphabet_};
  for (size_t r = 0; r < rule_count(); ++r) {
    if (inlined[r] && r != 0) {
      automata_.push_back({{AutomatonState()}});  // nobody calls it
      continue;
    }
    const auto rule = static_cast<RuleId>(r);
    Result<Automaton> built = build_automaton(context, expressions_.rule_body(rule), budget_);
    if (!built) {
      const std::string& name = expressions_.rule_name(rule);
      return name.empty() ? built.error() : invalid(name + ": " + built.error().message);
    }
    automata_.push_back(std::move(*built));
  }
  return Unit{};
}

// Dijkstra's algorithm from the ends of rules backwards, as Knuth generalised it: a call costs what
// the called rule does, and counts once the distances of that rule and of what follows are known.
Result<Unit> GrammarProgramBuilder::find_distances() {
  struct Place {
    size_t rule;
    int32_t state;
  };
  struct Caller {
    Place place;
    AutomatonCall call;
  };
  struct Entry {
    int32_t distance;
    Place place;
    bool operator>(const Entry& other) const { return distance > other.distance; }
  };
  std::vector<std::vector<std::vector<int32_t>>> before(rule_count());  // by rule and target
  std::vector<std::vector<std::vector<Caller>>> waiting(rule_count());  // likewise
  std::vector<std::vector<Caller>> callers(rule_count());
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> queue;  // the nearest first
  for (size_t r = 0; r < rule_count(); ++r) {
    const std::vector<AutomatonState>& states = automata_[r].states;
    distances_.emplace_back(states.size(), kDead);
    before[r].resize(states.size());
    waiting[r].resize(states.size());
    for (size_t s = 0; s < states.size(); ++s) {
      const Place place = {r, static_cast<int32_t>(s)};
      const size_t ways = states[s].edges.size() + states[s].tokens.size() + states[s].calls.size();
      budget_.steps -= static_cast<int64_t>(1 + 2 * ways);
      for (const auto& e : states[s].edges)
        before[r][static_cast<size_t>(e.target)].push_back(place.state);
      for (const auto& e : states[s].tokens)
        before[r][static_cast<size_t>(e.target)].push_back(place.state);
      for (const auto& c : states[s].calls) {
        waiting[r][static_cast<size_t>(c.target)].push_back({place, c});
        callers[static_cast<size_t>(c.rule)].push_back({place, c});
      }
      if (states[s].accepting) queue.push({0, place});
    }
  }
  if (budget_.steps < 0) return out_of_steps();
  const auto distance = [&](size_t rule, int32_t state) -> int32_t& {
    return distances_[rule][static_cast<size_t>(state)];
  };
  const auto reach = [&](const Place& place, int64_t cost) {
    if (distance(place.rule, place.state) == kDead)
      queue.push({static_cast<int32_t>(std::min<int64_t>(cost, kGrammarFar)), place});
  };
  const auto reach_caller = [&](const Caller& caller) {
    const int32_t called = distance(static_cast<size_t>(caller.call.rule), 0);
    const int32_t behind = distance(caller.place.rule, caller.call.target);
    if (called != kDead && behind != kDead) reach(caller.place, int64_t{called} + behind);
  };
  while (!queue.empty()) {
    const auto [cost, place] = queue.top();
    queue.pop();
    const auto state = static_cast<size_t>(place.state);
    if (distances_[place.rule][state] != kDead) continue;
    distances_[place.rule][state] = cost;
    for (const int32_t s : before[place.rule][state]) reach({place.rule, s}, int64_t{cost} + 1);
    for (const Caller& caller : waiting[place.rule][state]) reach_caller(caller);
    if (place.state != 0) continue;
    for (const Caller& caller : callers[place.rule]) reach_caller(caller);
  }
  return Unit{};
}

void GrammarProgramBuilder::drop_dead() {
  for (size_t r = 0; r < rule_count(); ++r) {
    const auto dead = [&](const auto& e) {
      return distances_[r][static_cast<size_t>(e.target)] == kDead;
    };
    for (AutomatonState& state : automata_[r].states) {
      std::erase_if(state.edges, dead);
      std::erase_if(state.tokens, dead);
      std::erase_if(state.calls, [&](const AutomatonCall& c) {
        return dead(c) || distances_[static_cast<size_t>(c.rule)][0] == kDead;
      });
    }
  }
}

// A rule that calls itself before it says anything would be expanded forever. Depth first, with an
// explicit stack: there may be as many rules as the limit allows.
Result<Unit> GrammarProgramBuilder::visit_left(RuleId root, std::vector<uint8_t>& colour) const {
  enum : uint8_t { kNew, kOpen, kDone };
  std::vector<std::pair<RuleId, size_t>> path = {{root, 0}};
  colour[static_cast<size_t>(root)] = kOpen;
  while (!path.empty()) {
    auto& [rule, next] = path.back();
    const auto& calls = automata_[static_cast<size_t>(rule)].states[0].calls;
    if (next == calls.size()) {
      colour[static_cast<size_t>(rule)] = kDone;
      path.pop_back();
      continue;
    }
    const RuleId callee = calls[next++].rule;
    uint8_t& seen = colour[static_cast<size_t>(callee)];
    if (seen == kOpen) {
      return invalid(fmt::format("{}: is left-recursive: it begins with itself before any text",
                                 expressions_.rule_name(callee)));
    }
    if (seen == kNew) {
      seen = kOpen;
      path.emplace_back(callee, 0);
    }
  }
  return Unit{};
}

Result<Unit> GrammarProgramBuilder::refuse_left_recursion() const {
  std::vector<uint8_t> colour(rule_count());
  for (size_t r = 0; r < rule_count(); ++r) {
    if (colour[r] == 0) QUERN_TRY(visit_left(static_cast<RuleId>(r), colour));
  }
  return Unit{};
}

// Dead states keep their numbers but nothing leads to them.
void GrammarProgramBuilder::flatten() {
  int32_t base = 0;
  for (const Automaton& automaton : automata_) {
    start_of_rule_.push_back(base);
    base += static_cast<int32_t>(automaton.states.size());
  }
  const auto says_nothing = [](const AutomatonState& state) {
    return state.accepting && state.edges.empty() && state.calls.empty() && state.tokens.empty();
  };
  const auto mark = [&](int32_t rule, int32_t distance) {
    program_.states_.push_back({.edges = static_cast<uint32_t>(program_.edges_.size()),
                                .calls = static_cast<uint32_t>(program_.calls_.size()),
                                .tokens = static_cast<uint32_t>(program_.tokens_.size()),
                                .rule = rule,
                                .distance = distance == kDead ? kGrammarFar : distance});
  };
  for (size_t r = 0; r < rule_count(); ++r) {
    const int32_t start = start_of_rule_[r];
    const auto& states = automata_[r].states;
    for (size_t s = 0; s < states.size(); ++s) {
      const AutomatonState& state = states[s];
      mark(static_cast<int32_t>(r), distances_[r][s]);
      program_.states_.back().accepting = state.accepting;
      program_.states_.back().plain = !state.accepting && state.calls.empty();
      for (const auto& e : state.edges)
        program_.edges_.push_back({e.low, e.high, start + e.target});
      for (const auto& e : state.tokens) program_.tokens_.push_back({e.token, start + e.target});
      for (const auto& c : state.calls) {
        const bool tail = says_nothing(states[static_cast<size_t>(c.target)]);
        program_.calls_.push_back(
            {start_of_rule_[static_cast<size_t>(c.rule)], tail ? kTailCall : start + c.target});
        rule_of_call_.push_back(c.rule);
      }
    }
  }
  mark(0, kDead);
  program_.start_ = start_of_rule_[0];
}

ByteSet GrammarProgramBuilder::first_bytes(int32_t state) const {
  ByteSet bytes;
  for (const AutomatonEdge& e : program_.edges(state)) {
    for (int b = e.low; b <= e.high; ++b) bytes.set(static_cast<size_t>(b));
  }
  return bytes;
}

Result<Unit> GrammarProgramBuilder::find_follow() {
  const auto states = static_cast<int32_t>(program_.state_count());
  std::vector<ByteSet> first(program_.state_count());  // of states, what called rules say included
  for (int32_t s = 0; s < states; ++s) first[static_cast<size_t>(s)] = first_bytes(s);
  std::vector<int32_t> calling;
  for (int32_t s = 0; s < states; ++s) {
    if (!program_.calls(s).empty()) calling.push_back(s);
  }
  program_.follow_.resize(rule_count());
  for (bool changed = true; changed;) {
    changed = false;
    budget_.steps -= static_cast<int64_t>(program_.calls_.size() * 4);
    if (budget_.steps < 0) return out_of_steps();
    for (auto it = calling.rbegin(); it != calling.rend(); ++it) {
      const int32_t s = *it;
      for (size_t c = program_.at(s).calls; c < program_.at(s + 1).calls; ++c) {
        const GrammarCall& call = program_.calls_[c];
        ByteSet& mine = first[static_cast<size_t>(s)];
        const ByteSet more = mine | first[static_cast<size_t>(call.start)];
        ByteSet& follow = program_.follow_[static_cast<size_t>(rule_of_call_[c])];
        ByteSet behind = follow;
        if (call.target != kTailCall) behind |= first[static_cast<size_t>(call.target)];
        if (call.target == kTailCall || program_.accepting(call.target))
          behind |= program_.follow(s);
        changed = changed || more != mine || behind != follow;
        mine = more;
        follow = behind;
      }
    }
  }
  return Unit{};
}

uint64_t GrammarProgramBuilder::signature(int32_t state,
                                          const std::vector<int32_t>& classes) const {
  const auto class_of = [&](int32_t s) {
    return s < 0 ? uint64_t{0xFFFFFFFF} : static_cast<uint64_t>(classes[static_cast<size_t>(s)]);
  };
  uint64_t hash = mix(0x243F6A8885A308D3u, class_of(state));
  const std::span<const AutomatonEdge> edges = program_.edges(state);
  for (size_t i = 0; i < edges.size();) {
    const uint64_t target = class_of(edges[i].target);
    size_t last = i;
    while (last + 1 < edges.size() && edges[last + 1].low == edges[last].high + 1 &&
           class_of(edges[last + 1].target) == target) {
      ++last;
    }
    hash = mix(hash, target << 16 | uint64_t{edges[i].low} << 8 | edges[last].high);
    i = last + 1;
  }
  for (const GrammarCall& c : program_.calls(state)) {
    hash = mix(mix(hash, ~static_cast<uint64_t>(c.start)), class_of(c.target));
  }
  return hash;
}

// The states that lead to each state, by bytes or behind a call.
std::vector<std::vector<int32_t>> GrammarProgramBuilder::sources() const {
  std::vector<std::vector<int32_t>> out(program_.state_count());
  for (int32_t s = 0; s < static_cast<int32_t>(out.size()); ++s) {
    const auto add = [&](int32_t target) {
      if (target < 0) return;
      auto& list = out[static_cast<size_t>(target)];
      if (list.empty() || list.back() != s) list.push_back(s);
    };
    for (const AutomatonEdge& e : program_.edges(s)) add(e.target);
    for (const GrammarCall& c : program_.calls(s)) add(c.target);
  }
  return out;
}

// Moore's partition refinement, stopped at the horizon; after the first rounds only states before
// those that changed their class are looked at. Signatures are told apart by 64 bits of hash: among
// 100,000 states two would share one by accident once in 10^9 grammars.
Result<Unit> GrammarProgramBuilder::find_classes() {
  const auto states = static_cast<int32_t>(program_.state_count());
  const std::vector<std::vector<int32_t>> before = sources();
  std::unordered_map<uint64_t, int32_t> index;
  std::vector<int32_t> classes;
  std::vector<int32_t> dirty;
  for (int32_t s = 0; s < states; ++s) {
    const uint64_t follow = std::hash<ByteSet>()(program_.follow(s));
    const uint64_t key = mix(follow, program_.accepting(s) ? 1 : 2);
    classes.push_back(index.emplace(key, static_cast<int32_t>(index.size())).first->second);
    dirty.push_back(s);
  }
  auto count = static_cast<int32_t>(index.size());
  std::vector<int32_t> size(program_.state_count());  // of each class
  for (const int32_t c : classes) ++size[static_cast<size_t>(c)];
  for (int round = 1;; ++round) {
    budget_.steps -= 4 * static_cast<int64_t>(dirty.size()) + states / 8;
    if (budget_.steps < 0) return out_of_steps();
    const std::vector<int32_t> changed = split_classes(dirty, classes, size, count);
    program_.horizon_ =
        changed.empty() ? std::numeric_limits<size_t>::max() : static_cast<size_t>(round);
    if (changed.empty() || round == kMaskHorizonBytes) break;
    dirty.clear();
    for (const int32_t s : changed) {
      const auto& list = before[static_cast<size_t>(s)];
      dirty.insert(dirty.end(), list.begin(), list.end());
    }
    std::sort(dirty.begin(), dirty.end());
    dirty.erase(std::unique(dirty.begin(), dirty.end()), dirty.end());
  }
  program_.mask_class_count_ = static_cast<size_t>(count);
  for (int32_t s = 0; s < states; ++s)
    program_.states_[static_cast<size_t>(s)].mask_class = classes[static_cast<size_t>(s)];
  return Unit{};
}

// Splits the classes of the dirty states by their signatures and returns the states that moved. Of
// a class the states that are not dirty stay, else those with the signature met first.
std::vector<int32_t> GrammarProgramBuilder::split_classes(const std::vector<int32_t>& dirty,
                                                          std::vector<int32_t>& classes,
                                                          std::vector<int32_t>& size,
                                                          int32_t& count) const {
  std::unordered_map<int32_t, int32_t> touched;  // dirty states of each class
  std::vector<uint64_t> signatures;
  for (const int32_t s : dirty) {
    ++touched[classes[static_cast<size_t>(s)]];
    signatures.push_back(signature(s, classes));
  }
  std::unordered_map<uint64_t, int32_t> index;  // signatures hold the class that is split
  std::unordered_map<int32_t, bool> kept;
  std::vector<int32_t> changed;
  for (size_t i = 0; i < dirty.size(); ++i) {
    int32_t& mine = classes[static_cast<size_t>(dirty[i])];
    const auto [found, added] = index.emplace(signatures[i], mine);
    if (added) {
      const bool all_touched = touched[mine] == size[static_cast<size_t>(mine)];
      bool& has_kept = kept[mine];
      if (!all_touched || has_kept) found->second = count++;
      has_kept = true;
    }
    if (found->second != mine) changed.push_back(dirty[i]);
  }
  for (size_t i = 0; i < dirty.size(); ++i)
    classes[static_cast<size_t>(dirty[i])] = index[signatures[i]];
  std::fill(size.begin(), size.end(), 0);
  for (const int32_t c : classes) ++size[static_cast<size_t>(c)];
  return changed;
}

}  // namespace quern
