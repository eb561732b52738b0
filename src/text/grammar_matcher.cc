#include "text/grammar_matcher.h"

#include <algorithm>
#include <array>

namespace quern {
namespace {

constexpr size_t kSeenSlots = 2 * kMaxGrammarElements;  // half full at most
constexpr size_t kSeenInRow = 16;
constexpr size_t kFirstStackSlots = 64;

uint64_t hash_pair(int32_t a, int32_t b) {
  uint64_t h = static_cast<uint64_t>(static_cast<uint32_t>(a)) << 32 | static_cast<uint32_t>(b);
  h *= 0x9E3779B97F4A7C15u;
  return h ^ (h >> 32);
}

}  // namespace

GrammarStacks::GrammarStacks() : frames_(1), slots_(kFirstStackSlots, -1) {}

// Where the frame is, or the free slot where it belongs.
size_t GrammarStacks::slot(const Frame& wanted) const {
  size_t i = hash_pair(wanted.below, wanted.state) & (slots_.size() - 1);
  while (slots_[i] >= 0) {
    const Frame& there = frame(slots_[i]);
    if (there.below == wanted.below && there.state == wanted.state) break;
    i = (i + 1) & (slots_.size() - 1);
  }
  return i;
}

int32_t GrammarStacks::push(int32_t below, int32_t state) {
  const Frame wanted = {below, state};
  size_t i = slot(wanted);
  if (slots_[i] >= 0) return slots_[i];
  if (frames_.size() * 2 > slots_.size()) {
    grow();
    i = slot(wanted);
  }
  slots_[i] = static_cast<int32_t>(frames_.size());
  frames_.push_back(wanted);
  return slots_[i];
}

void GrammarStacks::grow() {
  slots_.assign(slots_.size() * 2, -1);
  for (size_t f = 1; f < frames_.size(); ++f) slots_[slot(frames_[f])] = static_cast<int32_t>(f);
}

// Slots are freed last in, first out: no probe for an older frame crosses a freed one.
void GrammarStacks::shrink(size_t size) {
  while (frames_.size() > size) {
    slots_[slot(frames_.back())] = -1;
    frames_.pop_back();
  }
}

GrammarSimulator::GrammarSimulator(const GrammarProgram& program, GrammarBottom bottom)
    : program_(&program), bottom_(bottom) {}

// Whether the element is new; also false where there are too many. Few are compared one by one; the
// table for many is made when it is first needed, so that copies of a simulator are cheap.
bool GrammarSimulator::visit(const GrammarElement& element) {
  if (seen_.size() < kSeenInRow) {
    if (std::find(seen_.begin(), seen_.end(), element) != seen_.end()) return false;
    seen_.push_back(element);
    if (seen_.size() == kSeenInRow) fill_table();
    return true;
  }
  if (!insert(element)) return false;
  seen_.push_back(element);
  return true;
}

void GrammarSimulator::fill_table() {
  table_.resize(kSeenSlots);
  stamps_.resize(kSeenSlots, 0);
  if (++stamp_ == 0) {  // wrapped around: old stamps would look new
    std::fill(stamps_.begin(), stamps_.end(), 0);
    stamp_ = 1;
  }
  for (const GrammarElement& element : seen_) insert(element);
}

bool GrammarSimulator::insert(const GrammarElement& element) {
  size_t i = hash_pair(element.state, element.stack) & (kSeenSlots - 1);
  while (stamps_[i] == stamp_) {
    if (table_[i] == element) return false;
    i = (i + 1) & (kSeenSlots - 1);
  }
  if (seen_.size() == kMaxGrammarElements) return false;
  stamps_[i] = stamp_;
  table_[i] = element;
  return true;
}

// Follows calls and ends of rules, last in first out.
void GrammarSimulator::close(GrammarSet& out) {
  seen_.clear();
  while (!work_.empty()) {
    const GrammarElement e = work_.back();
    work_.pop_back();
    if (!visit(e)) continue;
    if (!program_->edges(e.state).empty() || !program_->tokens(e.state).empty())
      out.elements.push_back(e);
    if (program_->accepting(e.state)) {
      if (e.stack != 0) {
        const GrammarStacks::Frame& caller = stacks.frame(e.stack);
        work_.push_back({caller.state, caller.below});
      } else if (bottom_ == GrammarBottom::kEnd) {
        out.can_end = true;
      } else {
        out.escapes |= program_->follow(e.state);
      }
    }
    for (const GrammarCall& call : program_->calls(e.state)) {
      const bool tail = call.target == kTailCall;
      work_.push_back({call.start, tail ? e.stack : stacks.push(e.stack, call.target)});
    }
  }
}

void GrammarSimulator::start(GrammarSet& out) {
  out = {};
  work_.push_back({program_->start(), 0});
  close(out);
}

bool GrammarSimulator::step(const GrammarSet& in, uint8_t byte, GrammarSet& out) {
  out.elements.clear();
  out.can_end = false;
  out.escapes.reset();
  if (in.elements.size() == 1) {  // by far the most frequent
    const int32_t target = program_->step(in.elements[0].state, byte);
    if (target < 0) return false;
    if (program_->plain(target)) {
      out.elements.push_back({target, in.elements[0].stack});
      return true;
    }
    work_.push_back({target, in.elements[0].stack});
  } else {
    for (const GrammarElement& e : in.elements) {
      const int32_t target = program_->step(e.state, byte);
      if (target >= 0) work_.push_back({target, e.stack});
    }
  }
  if (work_.empty()) return false;
  close(out);
  return true;
}

bool GrammarSimulator::step_token(const GrammarSet& in, int32_t token, GrammarSet& out) {
  out = {};
  for (const GrammarElement& e : in.elements) {
    for (const AutomatonToken& edge : program_->tokens(e.state)) {
      if (edge.token == token) work_.push_back({edge.target, e.stack});
    }
  }
  if (work_.empty()) return false;
  close(out);
  return true;
}

size_t GrammarMask::bytes() const {
  return sizeof *this + (bits.size() + ids.size() + uncertain.size()) * sizeof(uint32_t);
}

namespace {

// The transitions of the states that a walk meets most, one entry for each byte.
class DenseRows {
 public:
  explicit DenseRows(const GrammarProgram& program) : program_(program), rows_(kRows) {}

  int32_t step(int32_t state, uint8_t byte) {
    Row& row = rows_[static_cast<size_t>(state) % kRows];
    if (row.state == state) return row.targets[byte];
    if (row.candidate != state) row.misses = 0;
    row.candidate = state;
    if (++row.misses == kMissesToFill) fill(row, state);
    return program_.step(state, byte);
  }

 private:
  static constexpr size_t kRows = 32;       // of 1 KiB: they stay in the first two caches
  static constexpr int kMissesToFill = 16;  // in a row: a fill costs about as much as they do

  struct Row {
    int32_t state = -1;
    int32_t candidate = -1;
    int misses = 0;
    std::array<int32_t, 256> targets;
  };

  void fill(Row& row, int32_t state) {
    row.state = state;
    row.targets.fill(-1);
    for (const AutomatonEdge& e : program_.edges(state)) {
      for (int b = e.low; b <= e.high; ++b) row.targets[static_cast<size_t>(b)] = e.target;
    }
  }

  const GrammarProgram& program_;
  std::vector<Row> rows_;
};

// One walk over the trie in preorder, with the readings behind each byte of the way down.
class MaskWalk {
 public:
  MaskWalk(const GrammarProgram& program, const TokenTrie& trie)
      : program_(program),
        trie_(trie),
        horizon_(program.horizon()),
        simulator_(program, GrammarBottom::kUnknown),
        rows_(program) {}

  GrammarMask run(int32_t state, int64_t& visited);

 private:
  struct Level {
    GrammarElement only;     // the one reading, where `single`; else they are in `set`
    bool single = false;     // one reading that has neither calls nor an end
    bool maybe = false;      // some caller may go on with the bytes since it returned
    uint32_t end = 0;        // of the node's subtree
    size_t stacks_size = 0;  // of the simulator behind this level
    GrammarSet set;
  };

  uint32_t enter(uint32_t n);
  bool step(Level& above, uint8_t byte, Level& level);
  void uncertain(uint32_t begin, uint32_t end);

  const GrammarProgram& program_;
  const TokenTrie& trie_;
  size_t horizon_;
  GrammarSimulator simulator_;
  DenseRows rows_;
  std::vector<Level> levels_;
  size_t depth_ = 0;
  std::vector<uint32_t> accepted_;  // sorted tokens
  GrammarMask mask_;
};

void MaskWalk::uncertain(uint32_t begin, uint32_t end) {
  for (uint32_t k = begin; k < end; ++k) mask_.uncertain.push_back(k);
}

// Moves the readings by one byte; false when none is left.
bool MaskWalk::step(Level& above, uint8_t byte, Level& level) {
  level.maybe = above.maybe;
  level.single = false;
  if (above.single) {
    const int32_t target = rows_.step(above.only.state, byte);
    if (target < 0) return false;
    if (program_.plain(target)) {
      level.single = true;
      level.only = {target, above.only.stack};
      return true;
    }
    above.set = {};  // it stays single; the simulator takes it from here
    above.set.elements.push_back(above.only);
  } else if (above.set.escapes[byte]) {
    level.maybe = true;
  }
  simulator_.stacks.shrink(above.stacks_size);
  return simulator_.step(above.set, byte, level.set);
}

// Looks at one node; returns the next.
uint32_t MaskWalk::enter(uint32_t n) {
  const TokenTrie::Node& node = trie_.nodes()[n];
  if (depth_ + 1 == levels_.size()) levels_.emplace_back();
  Level& level = levels_[depth_ + 1];
  const bool alive = step(levels_[depth_], node.byte, level);
  const uint32_t own_end = node.first_token + node.own_tokens;
  if (!alive) {
    if (level.maybe) uncertain(node.first_token, node.tokens_end);
    return node.subtree_end;
  }
  for (uint32_t k = node.first_token; k < own_end; ++k) accepted_.push_back(k);
  const bool stuck = !level.single && level.set.elements.empty();
  if (depth_ + 1 >= horizon_ || (stuck && level.maybe)) {
    uncertain(own_end, node.tokens_end);
    return node.subtree_end;
  }
  if (stuck && level.set.escapes.none()) return node.subtree_end;
  level.end = node.subtree_end;
  level.stacks_size = level.single ? levels_[depth_].stacks_size : simulator_.stacks.size();
  ++depth_;
  return n + 1;
}

GrammarMask MaskWalk::run(int32_t state, int64_t& visited) {
  levels_.emplace_back();
  levels_[0].single = true;  // only its own bytes count: its calls and its end are other readings
  levels_[0].only = {state, 0};
  levels_[0].stacks_size = simulator_.stacks.size();
  const auto nodes = static_cast<uint32_t>(trie_.nodes().size());
  levels_[0].end = nodes;
  for (uint32_t n = 1; n < nodes;) {
    while (n >= levels_[depth_].end) --depth_;
    n = enter(n);
    ++visited;
  }
  const auto words = (static_cast<size_t>(trie_.vocabulary_size()) + 31) / 32;
  if (accepted_.size() < words) {
    for (const uint32_t k : accepted_) mask_.ids.push_back(trie_.id(k));
  } else {
    mask_.bits.resize(words);
    for (const uint32_t k : accepted_) {
      const auto id = static_cast<uint32_t>(trie_.id(k));
      mask_.bits[id / 32] |= uint32_t{1} << (id % 32);
    }
  }
  mask_.uncertain.shrink_to_fit();
  return std::move(mask_);
}

}  // namespace

GrammarMask compute_mask(const GrammarProgram& program,
                         const TokenTrie& trie,
                         int32_t state,
                         int64_t& visited) {
  return MaskWalk(program, trie).run(state, visited);
}

}  // namespace quern
