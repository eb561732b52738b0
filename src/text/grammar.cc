#include "text/grammar.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/check.h"
#include "text/chat_template.h"
#include "text/grammar_ebnf.h"
#include "text/grammar_json.h"
#include "text/grammar_regex.h"
#include "text/json_schema.h"

namespace quern {
namespace {

constexpr size_t kMaxUncertainWork = 200'000;  // readings moved for one mask, about 30 ns each

void set_bit(std::span<uint32_t> mask, int32_t id) {
  const auto i = static_cast<uint32_t>(id);
  mask[i / 32] |= uint32_t{1} << (i % 32);
}

bool has_bit(std::span<const uint32_t> mask, int32_t id) {
  const auto i = static_cast<uint32_t>(id);
  return (mask[i / 32] >> (i % 32) & 1) != 0;
}

size_t shared_prefix(std::string_view a, std::string_view b) {
  const size_t most = std::min(a.size(), b.size());
  size_t i = 0;
  while (i < most && a[i] == b[i]) ++i;
  return i;
}

class GrammarConstraint final : public TokenConstraint {
 public:
  explicit GrammarConstraint(std::shared_ptr<const Grammar> grammar)
      : matcher_(std::move(grammar)) {}

  void fill_mask(std::span<uint32_t> mask) override { matcher_.fill_mask(mask); }
  int64_t distance() const override { return matcher_.distance(); }
  int64_t distance_behind(int32_t token) override { return matcher_.distance_behind(token); }
  void fill_closing_mask(std::span<uint32_t> mask) override { matcher_.fill_closing_mask(mask); }
  void accept(int32_t token) override { QUERN_CHECK(matcher_.accept(token)); }
  bool ended() const override { return matcher_.ended(); }

 private:
  GrammarMatcher matcher_;
};

}  // namespace

Grammar::Grammar(GrammarProgram program, std::shared_ptr<const TokenTrie> trie, size_t mask_bytes)
    : program_(std::move(program)),
      trie_(std::move(trie)),
      mask_limit_(mask_bytes),
      masks_(program_.mask_class_count()) {}

Grammar::~Grammar() {
  for (const auto& mask : masks_) delete mask.load(std::memory_order_acquire);
}

const GrammarMask& Grammar::mask(int32_t state, std::unique_ptr<const GrammarMask>& own) const {
  auto& kept = masks_[static_cast<size_t>(program_.mask_class(state))];
  if (const GrammarMask* found = kept.load(std::memory_order_acquire)) return *found;
  int64_t visited = 0;
  own = std::make_unique<const GrammarMask>(compute_mask(program_, *trie_, state, visited));
  const size_t bytes = own->bytes();
  if (mask_bytes_.fetch_add(bytes, std::memory_order_relaxed) + bytes > mask_limit_) {
    mask_bytes_.fetch_sub(bytes, std::memory_order_relaxed);
    return *own;
  }
  const GrammarMask* expected = nullptr;
  if (kept.compare_exchange_strong(expected, own.get(), std::memory_order_acq_rel)) {
    return *own.release();
  }
  mask_bytes_.fetch_sub(bytes, std::memory_order_relaxed);  // another thread was first
  return *expected;
}

void Grammar::prepare(int64_t steps) const {
  std::vector<bool> seen(program_.state_count());
  std::vector<int32_t> queue;
  const auto reach = [&](int32_t state) {
    if (state < 0 || seen[static_cast<size_t>(state)]) return;
    seen[static_cast<size_t>(state)] = true;
    queue.push_back(state);
  };
  reach(program_.start());
  for (size_t i = 0; i < queue.size() && steps > 0; ++i) {
    const int32_t state = queue[i];
    auto& kept = masks_[static_cast<size_t>(program_.mask_class(state))];
    if (!program_.edges(state).empty() && kept.load(std::memory_order_acquire) == nullptr) {
      int64_t visited = 0;
      auto made =
          std::make_unique<const GrammarMask>(compute_mask(program_, *trie_, state, visited));
      steps -= visited;
      const size_t bytes = made->bytes();
      if (mask_bytes() + bytes > mask_limit_) return;
      const GrammarMask* expected = nullptr;
      if (kept.compare_exchange_strong(expected, made.get(), std::memory_order_acq_rel)) {
        mask_bytes_.fetch_add(bytes, std::memory_order_relaxed);
        static_cast<void>(made.release());
      }
    }
    for (const AutomatonEdge& e : program_.edges(state)) reach(e.target);
    for (const AutomatonToken& e : program_.tokens(state)) reach(e.target);
    for (const GrammarCall& c : program_.calls(state)) {
      reach(c.start);
      reach(c.target);
    }
  }
}

GrammarMatcher::GrammarMatcher(std::shared_ptr<const Grammar> grammar)
    : grammar_(std::move(grammar)), simulator_(grammar_->program(), GrammarBottom::kEnd) {
  simulator_.start(current_);
}

void GrammarMatcher::clear(std::span<uint32_t> mask) const {
  QUERN_CHECK(mask.size() * 32 >= static_cast<size_t>(grammar_->trie().vocabulary_size()));
  std::fill(mask.begin(), mask.end(), 0);
}

void GrammarMatcher::fill_mask(std::span<uint32_t> mask) {
  const TokenTrie& trie = grammar_->trie();
  clear(mask);
  if (stopped_ || current_.can_end) {
    for (const int32_t id : trie.eos_ids()) set_bit(mask, id);
  }
  if (stopped_) return;
  classes_.clear();
  uncertain_.clear();
  for (const GrammarElement& element : current_.elements) {
    for (const AutomatonToken& edge : grammar_->program().tokens(element.state))
      set_bit(mask, edge.token);
    if (!grammar_->program().edges(element.state).empty()) add_mask(element.state, mask);
  }
  if (!uncertain_.empty()) add_uncertain(mask);
}

// Readings often share their masks: each counts once.
void GrammarMatcher::add_mask(int32_t state, std::span<uint32_t> mask) {
  const int32_t mask_class = grammar_->program().mask_class(state);
  const auto place = std::lower_bound(classes_.begin(), classes_.end(), mask_class);
  if (place != classes_.end() && *place == mask_class) return;
  classes_.insert(place, mask_class);
  std::unique_ptr<const GrammarMask> own;
  const GrammarMask& found = grammar_->mask(state, own);
  for (size_t i = 0; i < found.bits.size(); ++i) mask[i] |= found.bits[i];
  for (const int32_t id : found.ids) set_bit(mask, id);
  if (uncertain_.empty()) {
    uncertain_ = found.uncertain;
  } else if (!found.uncertain.empty()) {
    std::vector<uint32_t> all;
    std::set_union(uncertain_.begin(), uncertain_.end(), found.uncertain.begin(),
                   found.uncertain.end(), std::back_inserter(all));
    uncertain_ = std::move(all);
  }
}

// Tries the uncertain tokens in the order of their bytes: what one shares with the last is not
// walked again. Where an ambiguous grammar makes that too much work the rest is left out, which
// only narrows what may be said: a state's own mask always holds a token.
void GrammarMatcher::add_uncertain(std::span<uint32_t> mask) {
  const TokenTrie& trie = grammar_->trie();
  const size_t stacks_before = simulator_.stacks.size();
  if (path_.empty()) path_.resize(1);
  path_[0] = current_;
  path_stacks_.assign(1, stacks_before);
  std::string_view last;
  size_t alive = 0;  // bytes of `last` that lead somewhere
  size_t work = 0;
  for (const uint32_t k : uncertain_) {
    if (has_bit(mask, trie.id(k))) continue;
    if (work > kMaxUncertainWork) break;
    const std::string_view bytes = trie.bytes(k);
    const size_t common = shared_prefix(last, bytes);
    last = bytes;
    if (common > alive) continue;  // fails where the last one did
    alive = common;
    path_stacks_.resize(alive + 1);
    simulator_.stacks.shrink(path_stacks_[alive]);
    while (alive < bytes.size()) {
      if (path_.size() == alive + 1) path_.emplace_back();
      work += path_[alive].elements.size();
      if (!simulator_.step(path_[alive], static_cast<uint8_t>(bytes[alive]), path_[alive + 1]))
        break;
      ++alive;
      path_stacks_.push_back(simulator_.stacks.size());
    }
    if (alive == bytes.size()) set_bit(mask, trie.id(k));
  }
  simulator_.stacks.shrink(stacks_before);
}

bool GrammarMatcher::run(GrammarSet from, std::string_view bytes, GrammarSet& to) {
  for (const char c : bytes) {
    if (!simulator_.step(from, static_cast<uint8_t>(c), to)) return false;
    std::swap(from, to);
  }
  std::swap(from, to);
  return true;
}

GrammarMatcher::Move GrammarMatcher::move(int32_t token, GrammarSet& to) {
  const TokenTrie& trie = grammar_->trie();
  if (stopped_) return trie.is_eos(token) ? Move::kEnd : Move::kNone;
  if (simulator_.step_token(current_, token, to)) return Move::kOn;
  if (trie.is_eos(token)) return current_.can_end ? Move::kEnd : Move::kNone;
  const std::string_view bytes = trie.token_bytes(token);
  if (bytes.empty()) return Move::kNone;
  if (run(current_, bytes, to)) return Move::kOn;
  // With too many readings the one that the mask went by may have been dropped on the way.
  for (const GrammarElement& element : current_.elements) {
    GrammarSet one;
    one.elements.push_back(element);
    if (run(one, bytes, to)) return Move::kOn;
  }
  return Move::kNone;
}

bool GrammarMatcher::accept(int32_t token) {
  GrammarSet next;
  const Move move = this->move(token, next);
  if (move == Move::kEnd) stopped_ = true;
  if (move == Move::kOn) current_ = std::move(next);
  return move != Move::kNone;
}

int64_t GrammarMatcher::distance(const GrammarSet& set) const {
  if (set.can_end) return 0;
  int64_t least = kGrammarFar;
  for (const GrammarElement& element : set.elements) {
    int64_t all = grammar_->program().distance(element.state);
    for (int32_t stack = element.stack; stack != 0 && all < least;) {
      const GrammarStacks::Frame& caller = simulator_.stacks.frame(stack);
      all += grammar_->program().distance(caller.state);
      stack = caller.below;
    }
    least = std::min(least, all);
  }
  return least;
}

int64_t GrammarMatcher::distance_behind(int32_t token) {
  const size_t stacks_before = simulator_.stacks.size();
  GrammarSet next;
  const int64_t left = move(token, next) == Move::kEnd ? 0 : distance(next);
  simulator_.stacks.shrink(stacks_before);
  return left;
}

void GrammarMatcher::fill_closing_mask(std::span<uint32_t> mask) {
  const int64_t left = distance();
  if (left == kGrammarFar) return fill_mask(mask);
  clear(mask);
  if (left == 0) {
    for (const int32_t id : grammar_->trie().eos_ids()) set_bit(mask, id);
    return;
  }
  const size_t stacks_before = simulator_.stacks.size();
  GrammarSet next;
  for (const GrammarElement& element : current_.elements) {
    for (const AutomatonToken& edge : grammar_->program().tokens(element.state)) {
      if (simulator_.step_token(current_, edge.token, next) && distance(next) < left)
        set_bit(mask, edge.token);
    }
  }
  add_closing_tokens(mask);
  simulator_.stacks.shrink(stacks_before);
  if (std::all_of(mask.begin(), mask.end(), [](uint32_t word) { return word == 0; }))
    fill_mask(mask);  // an ambiguous grammar whose shortest reading was dropped
}

// Goes down the trie by bytes alone that each bring the end nearer: few do.
void GrammarMatcher::add_closing_tokens(std::span<uint32_t> mask) {
  const TokenTrie& trie = grammar_->trie();
  const std::vector<TokenTrie::Node>& nodes = trie.nodes();
  struct Level {
    uint32_t end = 0;  // of the node's subtree
    size_t stacks = 0;
    int64_t distance = 0;
  };
  std::vector<Level> levels = {
      {static_cast<uint32_t>(nodes.size()), simulator_.stacks.size(), distance()}};
  if (path_.empty()) path_.resize(1);
  path_[0] = current_;
  for (uint32_t n = 1; n < nodes.size();) {
    while (n >= levels.back().end) levels.pop_back();
    const Level above = levels.back();
    const size_t depth = levels.size();
    if (path_.size() == depth) path_.emplace_back();
    simulator_.stacks.shrink(above.stacks);
    const TokenTrie::Node& node = nodes[n];
    const bool alive = simulator_.step(path_[depth - 1], node.byte, path_[depth]);
    const int64_t left = alive ? distance(path_[depth]) : kGrammarFar;
    if (left >= above.distance) {
      n = node.subtree_end;
      continue;
    }
    for (uint32_t k = node.first_token; k < node.first_token + node.own_tokens; ++k)
      set_bit(mask, trie.id(k));
    levels.push_back({node.subtree_end, simulator_.stacks.size(), left});
    ++n;
  }
}

std::unique_ptr<TokenConstraint> make_constraint(std::shared_ptr<const Grammar> grammar) {
  return std::make_unique<GrammarConstraint>(std::move(grammar));
}

Result<Unit> GrammarCompiler::check_source(std::string_view text, std::string_view what) const {
  if (text.size() <= limits_.source_bytes) return Unit{};
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{}: {} bytes, at most {}", what, text.size(), limits_.source_bytes)};
}

Result<std::shared_ptr<const Grammar>> GrammarCompiler::json_schema(std::string_view schema) const {
  QUERN_TRY(check_source(schema, "schema"));
  const OrderedJson parsed = QUERN_TRY(parse_ordered_json(schema, "schema"));
  Expressions out(limits_.expressions);
  JsonExpressions json(out);
  out.add_rule("");
  out.set_rule(0, QUERN_TRY(schema_expression(parsed, "schema", json, out)));
  return finish(out, "schema");
}

Result<std::shared_ptr<const Grammar>> GrammarCompiler::json_object() const {
  Expressions out(limits_.expressions);
  JsonExpressions json(out);
  out.add_rule("");
  out.set_rule(0, out.call(json.object_rule()));
  return finish(out, "json_object");
}

Result<std::shared_ptr<const Grammar>> GrammarCompiler::regex(std::string_view expression) const {
  QUERN_TRY(check_source(expression, "regex"));
  Expressions out(limits_.expressions);
  out.add_rule("");
  Result<ExpressionId> parsed = regex_expression(expression, {}, out);
  if (!parsed) return Error{parsed.error().code, "regex: " + parsed.error().message};
  out.set_rule(0, *parsed);
  return finish(out, "regex");
}

Result<std::shared_ptr<const Grammar>> GrammarCompiler::ebnf(std::string_view grammar) const {
  QUERN_TRY(check_source(grammar, "grammar"));
  Expressions out(limits_.expressions);
  out.add_rule("");
  Result<ExpressionId> parsed = ebnf_expression(grammar, out);
  if (!parsed) return Error{parsed.error().code, "grammar: " + parsed.error().message};
  out.set_rule(0, *parsed);
  return finish(out, "grammar");
}

Result<std::shared_ptr<const Grammar>> GrammarCompiler::tool_calls(
    const ToolGrammarRequest& request) const {
  for (size_t i = 0; i < request.functions.size(); ++i) {
    QUERN_TRY(
        check_source(request.functions[i].parameters_json, fmt::format("tools[{}].parameters", i)));
  }
  Expressions out(limits_.expressions);
  JsonExpressions json(out);
  out.add_rule("");
  out.set_rule(0, QUERN_TRY(tool_expression(request, *trie_, json, out)));
  return finish(out, "tools");
}

Result<std::shared_ptr<const Grammar>> GrammarCompiler::finish(const Expressions& expressions,
                                                               std::string_view what) const {
  if (trie_->eos_ids().empty()) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: the tokenizer names no token that ends a text", what)};
  }
  Result<GrammarProgram> program =
      GrammarProgram::build(expressions, trie_->single_bytes(), limits_);
  if (!program) {
    const std::string& message = program.error().message;
    const bool placed = message.starts_with(what);
    return Error{program.error().code, placed ? message : fmt::format("{}: {}", what, message)};
  }
  auto grammar = std::make_shared<const Grammar>(std::move(*program), trie_, limits_.mask_bytes);
  grammar->prepare(limits_.prepare_steps);
  return std::shared_ptr<const Grammar>(std::move(grammar));
}

}  // namespace quern
