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
  void find_live();
  void drop_dead();
  Result<Unit> refuse_left_recursion() const;
  Result<Unit> visit_left(RuleId rule, std::vector<uint8_t>& colour) const;
  void flatten();
  Result<Unit> find_distances();
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
  std::vector<Automaton> automata_;  // by rule
  std::vector<std::vector<bool>> live_;
  std::vector<int32_t> rule_of_call_;  // beside program_.calls_
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
  find_live();
  if (!live_[0][0]) return invalid("matches no text at all");
  drop_dead();
  QUERN_TRY(refuse_left_recursion());
  flatten();
  QUERN_TRY(find_distances());
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

// A state is live when some text leads from it to the end of its rule.
void GrammarProgramBuilder::find_live() {
  struct Place {
    size_t rule;
    int32_t state;
  };
  std::vector<std::vector<std::vector<int32_t>>> sources(rule_count());  // by rule and target
  std::vector<std::vector<std::pair<Place, int32_t>>> callers(rule_count());
  std::vector<Place> found;
  const auto mark = [&](size_t rule, int32_t state) {
    if (live_[rule][static_cast<size_t>(state)]) return;
    live_[rule][static_cast<size_t>(state)] = true;
    found.push_back({rule, state});
  };
  for (size_t r = 0; r < rule_count(); ++r) {
    const std::vector<AutomatonState>& states = automata_[r].states;
    live_.emplace_back(states.size());
    sources[r].resize(states.size());
    for (size_t s = 0; s < states.size(); ++s) {
      const auto state = static_cast<int32_t>(s);
      for (const auto& e : states[s].edges)
        sources[r][static_cast<size_t>(e.target)].push_back(state);
      for (const auto& e : states[s].tokens)
        sources[r][static_cast<size_t>(e.target)].push_back(state);
      for (const auto& c : states[s].calls)
        callers[static_cast<size_t>(c.rule)].push_back({{r, state}, c.target});
    }
  }
  // Calls count once their rule and what follows them are both live: waiting at either.
  std::vector<std::vector<std::vector<int32_t>>> waiting = sources;
  for (auto& rule : waiting) {
    for (auto& list : rule) list.clear();
  }
  for (size_t r = 0; r < rule_count(); ++r) {
    for (size_t s = 0; s < automata_[r].states.size(); ++s) {
      if (automata_[r].states[s].accepting) mark(r, static_cast<int32_t>(s));
    }
  }
  while (!found.empty()) {
    const Place place = found.back();
    found.pop_back();
    const auto state = static_cast<size_t>(place.state);
    for (const int32_t s : sources[place.rule][state]) mark(place.rule, s);
    for (const int32_t s : waiting[place.rule][state]) mark(place.rule, s);
    if (place.state != 0) continue;
    for (const auto& [caller, target] : callers[place.rule]) {
      if (live_[caller.rule][static_cast<size_t>(target)]) mark(caller.rule, caller.state);
      waiting[caller.rule][static_cast<size_t>(target)].push_back(caller.state);
    }
  }
}

void GrammarProgramBuilder::drop_dead() {
  for (size_t r = 0; r < rule_count(); ++r) {
    const auto dead = [&](const auto& e) { return !live_[r][static_cast<size_t>(e.target)]; };
    for (AutomatonState& state : automata_[r].states) {
      std::erase_if(state.edges, dead);
      std::erase_if(state.tokens, dead);
      std::erase_if(state.calls, [&](const AutomatonCall& c) {
        return dead(c) || !live_[static_cast<size_t>(c.rule)][0];
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
  const auto mark = [&](int32_t rule) {
    program_.states_.push_back({.edges = static_cast<uint32_t>(program_.edges_.size()),
                                .calls = static_cast<uint32_t>(program_.calls_.size()),
                                .tokens = static_cast<uint32_t>(program_.tokens_.size()),
                                .rule = rule});
  };
  for (size_t r = 0; r < rule_count(); ++r) {
    const int32_t start = start_of_rule_[r];
    const auto& states = automata_[r].states;
    for (const AutomatonState& state : states) {
      mark(static_cast<int32_t>(r));
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
  mark(0);
  program_.start_ = start_of_rule_[0];
}

// Dijkstra's algorithm from the ends of rules backwards, as Knuth generalised it: a call costs what
// the called rule does, and counts once the distances of that rule and of what follows are known.
Result<Unit> GrammarProgramBuilder::find_distances() {
  const size_t states = program_.state_count();
  const size_t ways = program_.edges_.size() + program_.tokens_.size() + program_.calls_.size();
  budget_.steps -= static_cast<int64_t>(states + 2 * ways);
  if (budget_.steps < 0) return out_of_steps();
  struct Caller {
    int32_t state;
    GrammarCall call;
  };
  std::vector<std::vector<int32_t>> before(states);  // where a byte or a token leads from
  std::vector<std::vector<Caller>> waiting(states);  // calls that the state's distance counts in
  std::priority_queue<std::pair<int32_t, int32_t>, std::vector<std::pair<int32_t, int32_t>>,
                      std::greater<>>
      queue;  // distances and states, the nearest first
  for (int32_t s = 0; s < static_cast<int32_t>(states); ++s) {
    for (const AutomatonEdge& e : program_.edges(s)) {
      auto& list = before[static_cast<size_t>(e.target)];
      if (list.empty() || list.back() != s) list.push_back(s);
    }
    for (const AutomatonToken& e : program_.tokens(s))
      before[static_cast<size_t>(e.target)].push_back(s);
    for (const GrammarCall& c : program_.calls(s)) {
      waiting[static_cast<size_t>(c.start)].push_back({s, c});
      if (c.target != kTailCall) waiting[static_cast<size_t>(c.target)].push_back({s, c});
    }
    if (program_.accepting(s)) queue.emplace(0, s);
  }
  std::vector<bool> known(states);
  const auto reach = [&](int32_t s, int64_t distance) {
    if (!known[static_cast<size_t>(s)])
      queue.emplace(static_cast<int32_t>(std::min<int64_t>(distance, kGrammarFar)), s);
  };
  while (!queue.empty()) {
    const auto [distance, state] = queue.top();
    queue.pop();
    if (known[static_cast<size_t>(state)]) continue;
    known[static_cast<size_t>(state)] = true;
    program_.states_[static_cast<size_t>(state)].distance = distance;
    for (const int32_t s : before[static_cast<size_t>(state)]) reach(s, int64_t{distance} + 1);
    for (const Caller& caller : waiting[static_cast<size_t>(state)]) {
      const GrammarCall& call = caller.call;
      const bool tail = call.target == kTailCall;
      if (!known[static_cast<size_t>(call.start)]) continue;
      if (!tail && !known[static_cast<size_t>(call.target)]) continue;
      reach(caller.state,
            int64_t{program_.distance(call.start)} + (tail ? 0 : program_.distance(call.target)));
    }
  }
  return Unit{};
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
