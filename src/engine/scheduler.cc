#include "engine/scheduler.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

namespace quern {
namespace {

using Owner = std::unique_ptr<Sequence>;

bool in_order_of_arrival(const Owner& a, const Owner& b) { return a->id < b->id; }

bool in_order_of_rank(const Owner& a, const Owner& b) {
  if (a->request.priority != b->request.priority) return a->request.priority < b->request.priority;
  return a->id < b->id;
}

void insert(std::vector<Owner>& queue, Owner sequence, bool (*before)(const Owner&, const Owner&)) {
  const auto place = std::upper_bound(queue.begin(), queue.end(), sequence, before);
  queue.insert(place, std::move(sequence));
}

}  // namespace

Scheduler::Scheduler(const SchedulerLimits& limits) : limits_(limits) {
  QUERN_CHECK(limits.sequences >= 1 && limits.batch_tokens >= limits.sequences);
  QUERN_CHECK(limits.logit_rows >= limits.sequences);
  QUERN_CHECK(limits.waiting >= 1 && limits.prefill_chunk >= 0);
  if (limits_.prefill_chunk == 0) limits_.prefill_chunk = limits_.batch_tokens;
  running_.reserve(static_cast<size_t>(limits.sequences));
  waiting_.reserve(static_cast<size_t>(limits.waiting + limits.sequences));
  chunks_.reserve(static_cast<size_t>(limits.sequences));
}

Result<Unit> Scheduler::add(std::unique_ptr<Sequence> sequence) {
  if (waiting_new_ >= limits_.waiting) {
    ++refused_requests_;
    return Error{ErrorCode::kExhausted,
                 fmt::format("the queue is full: {} requests are waiting", limits_.waiting)};
  }
  const int64_t tokens = sequence->prompt_tokens;
  if (limits_.waiting_tokens > 0 && waiting_new_ > 0 &&
      waiting_tokens_ + tokens > limits_.waiting_tokens) {
    ++refused_tokens_;
    return Error{ErrorCode::kExhausted,
                 fmt::format("the queue is full: {} prompt tokens are waiting, {} more exceed {}",
                             waiting_tokens_, tokens, limits_.waiting_tokens)};
  }
  QUERN_CHECK(waiting_.empty() || waiting_.back()->id < sequence->id);
  ++waiting_new_;
  waiting_tokens_ += tokens;
  share_.arrive(sequence->request.tenant);
  waiting_.push_back(std::move(sequence));
  return Unit{};
}

std::span<ScheduledChunk> Scheduler::schedule(BlockManager& blocks) {
  chunks_.clear();
  room_ = {limits_.batch_tokens, limits_.logit_rows};
  admit_urgent(blocks);
  const int64_t preemptions_before = preemptions_;
  for (size_t i = 0; i < running_.size(); ++i) {
    adopt_prefix(*running_[i]);
    const auto behind = static_cast<int64_t>(running_.size() - 1 - i);
    const ScheduledChunk chunk = next_chunk(*running_[i], behind);
    if (!make_room(i, chunk.count)) break;
    take(chunk);
  }
  if (preemptions_ == preemptions_before) admit_waiting(blocks);
  return chunks_;
}

ScheduledChunk Scheduler::next_chunk(Sequence& sequence, int64_t behind) const {
  const int64_t unwanted = std::max<int64_t>(0, sequence.first_wanted() - sequence.computed);
  int64_t count = std::min({sequence.remaining(), room_.rows - behind, limits_.prefill_chunk});
  if (sequence.request.embedding) {
    return {.sequence = &sequence,
            .count = count,
            .hidden_rows = std::max<int64_t>(0, count - unwanted)};
  }
  count = std::min(count, unwanted + room_.logit_rows - behind);
  return {
      .sequence = &sequence, .count = count, .logit_rows = std::max<int64_t>(0, count - unwanted)};
}

void Scheduler::take(const ScheduledChunk& chunk) {
  chunks_.push_back(chunk);
  room_.rows -= chunk.count;
  room_.logit_rows -= chunk.logit_rows;
}

void Scheduler::add_guesses(ScheduledChunk& chunk, int64_t guesses) {
  Sequence& sequence = *chunk.sequence;
  QUERN_CHECK(chunk.completes() && chunk.guesses == 0);
  guesses = std::min({guesses, room_.rows, room_.logit_rows});
  while (guesses > 0 && !sequence.blocks.cover(sequence.known() + guesses)) --guesses;
  chunk.guesses = guesses;
  chunk.logit_rows += guesses;
  room_.rows -= guesses;
  room_.logit_rows -= guesses;
}

bool Scheduler::make_room(size_t index, int64_t count) {
  Sequence& sequence = *running_[index];
  while (!sequence.blocks.cover(sequence.computed + count)) {
    QUERN_CHECK(running_.size() > 1);  // one sequence alone fits into the cache
    preempt_last();
    if (index == running_.size()) return false;  // it was the last itself
  }
  return true;
}

void Scheduler::preempt_last() {
  Owner last = std::move(running_.back());
  running_.pop_back();
  last->most_computed = std::max(last->most_computed, last->computed);
  last->computed = 0;
  last->blocks.release();
  insert(waiting_, std::move(last), in_order_of_arrival);
  ++preemptions_;
}

void Scheduler::admit_urgent(BlockManager& blocks) {
  while (!waiting_.empty() && !running_.empty()) {
    Sequence& sequence = next_waiting();
    if (!could_displace(sequence, blocks)) return;
    while (running() == limits_.sequences || !fits(sequence, blocks)) {
      if (running_.empty() || running_.back()->request.priority <= sequence.request.priority) {
        return;  // the others share so many blocks that less came free than they own
      }
      preempt_last();
    }
    admit(sequence);
  }
}

// Whether there would be room without the running ones of lower priority, of which there are some.
bool Scheduler::could_displace(const Sequence& sequence, const BlockManager& blocks) const {
  int64_t others = 0;
  int64_t blocks_to_gain = 0;
  for (const Owner& owner : running_) {
    const bool is_lower = owner->request.priority > sequence.request.priority;
    others += is_lower ? 0 : 1;
    blocks_to_gain += is_lower ? owner->blocks.size() : 0;
  }
  return others < running() &&
         blocks_for(sequence.known()) + others <= blocks.free() + blocks_to_gain;
}

void Scheduler::admit_waiting(BlockManager& blocks) {
  while (!waiting_.empty() && running() < limits_.sequences) {
    if (room_.rows == 0 || room_.logit_rows == 0) return;
    Sequence& sequence = next_waiting();
    if (!fits(sequence, blocks)) return;
    admit(sequence);
    take(next_chunk(sequence, 0));
  }
}

void Scheduler::admit(Sequence& sequence) {
  if (!sequence.admitted) count_admission(sequence);
  adopt_prefix(sequence);
  QUERN_CHECK(sequence.blocks.cover(sequence.known()));
  if (!std::exchange(sequence.admitted, true)) {
    const int64_t computed = sequence.prompt_tokens - sequence.cached_tokens;
    share_.charge(sequence.request.tenant, computed, sequence.request.tenant_weight);
  }
  const auto is_it = [&](const Owner& owner) { return owner.get() == &sequence; };
  const auto place = std::find_if(waiting_.begin(), waiting_.end(), is_it);
  insert(running_, std::move(*place), in_order_of_rank);
  waiting_.erase(place);
}

void Scheduler::count_admission(const Sequence& sequence) {
  overtaken_ = &sequence == oldest_new(sequence.request.priority) ? 0 : overtaken_ + 1;
  --waiting_new_;
  waiting_tokens_ -= sequence.prompt_tokens;
  prefix_queries_ += sequence.prompt_tokens;
  share_.admit(sequence.request.tenant);
}

Sequence& Scheduler::next_waiting() const {
  Sequence* next = waiting_.front().get();
  for (const Owner& sequence : waiting_) {
    if (goes_before(*sequence, *next)) next = sequence.get();
  }
  const bool oldest_has_turn = !next->admitted && overtaken_ >= kMostOvertaken;
  return oldest_has_turn ? *oldest_new(next->request.priority) : *next;
}

bool Scheduler::goes_before(const Sequence& a, const Sequence& b) const {
  if (a.request.priority != b.request.priority) return a.request.priority < b.request.priority;
  if (a.admitted != b.admitted) return a.admitted;
  if (!a.admitted) {
    const int64_t of_a = share_.counter(a.request.tenant);
    const int64_t of_b = share_.counter(b.request.tenant);
    if (of_a != of_b) return of_a < of_b;
  }
  return a.id < b.id;
}

Sequence* Scheduler::oldest_new(int32_t priority) const {
  const auto is_new = [priority](const Owner& owner) {
    return !owner->admitted && owner->request.priority == priority;
  };
  const auto oldest = std::find_if(waiting_.begin(), waiting_.end(), is_new);
  return oldest == waiting_.end() ? nullptr : oldest->get();
}

void Scheduler::charge_output(const Sequence& sequence) {
  share_.charge(sequence.request.tenant, kOutputCharge, sequence.request.tenant_weight);
}

bool Scheduler::fits(const Sequence& sequence, const BlockManager& blocks) const {
  const int64_t shared = sequence.blocks.count_in_use(sequence.tokens, sequence.first_wanted());
  const int64_t room_to_grow = running();
  return blocks_for(sequence.known()) - shared + room_to_grow <= blocks.free();
}

// What a preempted sequence gets back of its own is no hit: it was computed for it once.
void Scheduler::adopt_prefix(Sequence& sequence) {
  const int64_t end = sequence.blocks.adopt(sequence.tokens, sequence.first_wanted());
  if (end <= sequence.computed) return;
  const int64_t new_from = std::max(sequence.computed, sequence.most_computed);
  const int64_t hits = std::max<int64_t>(0, std::min(end, sequence.prompt_tokens) - new_from);
  sequence.cached_tokens += hits;
  prefix_hits_ += hits;
  sequence.computed = end;
}

void Scheduler::remove(const Sequence& sequence) {
  const auto is_it = [&](const Owner& owner) { return owner.get() == &sequence; };
  const auto running = std::find_if(running_.begin(), running_.end(), is_it);
  if (running != running_.end()) {
    running_.erase(running);
    return;
  }
  const auto waiting = std::find_if(waiting_.begin(), waiting_.end(), is_it);
  QUERN_CHECK(waiting != waiting_.end());
  if (!sequence.admitted) {
    --waiting_new_;
    waiting_tokens_ -= sequence.prompt_tokens;
    share_.leave(sequence.request.tenant);
  }
  waiting_.erase(waiting);
}

Sequence* Scheduler::find(FunctionRef<bool(const Sequence&)> wanted) {
  for (const Owner& sequence : running_) {
    if (wanted(*sequence)) return sequence.get();
  }
  for (const Owner& sequence : waiting_) {
    if (wanted(*sequence)) return sequence.get();
  }
  return nullptr;
}

int64_t Scheduler::owned_blocks() const {
  int64_t count = 0;
  for (const Owner& sequence : running_) count += sequence->blocks.size();
  for (const Owner& sequence : waiting_) count += sequence->blocks.size();
  return count;
}

bool Scheduler::consistent() const {
  const bool ordered = std::is_sorted(running_.begin(), running_.end(), in_order_of_rank) &&
                       std::is_sorted(waiting_.begin(), waiting_.end(), in_order_of_arrival);
  int64_t waiting_new = 0, waiting_tokens = 0;
  for (const Owner& sequence : waiting_) {
    if (sequence->blocks.size() != 0 || sequence->computed != 0) return false;
    if (sequence->admitted) continue;
    ++waiting_new;
    waiting_tokens += sequence->prompt_tokens;
  }
  const bool running_are_covered =
      std::all_of(running_.begin(), running_.end(), [](const Owner& sequence) {
        return sequence->admitted && blocks_for(sequence->computed) <= sequence->blocks.size();
      });
  return ordered && running_are_covered && waiting_new == waiting_new_ &&
         waiting_tokens == waiting_tokens_;
}

}  // namespace quern
