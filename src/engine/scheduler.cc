#include "engine/scheduler.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

namespace quern {
namespace {

using Owner = std::unique_ptr<Sequence>;

bool in_order_of_arrival(const Owner& a, const Owner& b) { return a->id < b->id; }

bool never_ran(const Owner& sequence) { return !sequence->admitted; }

}  // namespace

Scheduler::Scheduler(const SchedulerLimits& limits) : limits_(limits) {
  QUERN_CHECK(limits.sequences >= 1 && limits.batch_tokens >= limits.sequences);
  QUERN_CHECK(limits.logit_rows >= limits.sequences);
  QUERN_CHECK(limits.waiting >= 1 && limits.prefill_chunk >= 0);
  if (limits_.prefill_chunk == 0) limits_.prefill_chunk = limits_.batch_tokens;
  running_.reserve(static_cast<size_t>(limits.sequences));
  chunks_.reserve(static_cast<size_t>(limits.sequences));
}

Result<Unit> Scheduler::add(std::unique_ptr<Sequence> sequence) {
  if (std::count_if(waiting_.begin(), waiting_.end(), never_ran) >= limits_.waiting) {
    return Error{ErrorCode::kExhausted,
                 fmt::format("the queue is full: {} requests are waiting", limits_.waiting)};
  }
  QUERN_CHECK(waiting_.empty() || waiting_.back()->id < sequence->id);
  waiting_.push_back(std::move(sequence));
  return Unit{};
}

std::span<const ScheduledChunk> Scheduler::schedule(BlockManager& blocks) {
  chunks_.clear();
  const int64_t preemptions_before = preemptions_;
  Room room{limits_.batch_tokens, limits_.logit_rows};
  for (size_t i = 0; i < running_.size(); ++i) {
    adopt_prefix(*running_[i]);
    const auto behind = static_cast<int64_t>(running_.size() - 1 - i);
    const ScheduledChunk chunk =
        next_chunk(*running_[i], {room.rows - behind, room.logit_rows - behind});
    if (!make_room(i, chunk.count)) break;
    chunks_.push_back(chunk);
    room.rows -= chunk.count;
    room.logit_rows -= chunk.logit_rows;
  }
  if (preemptions_ == preemptions_before) admit_waiting(blocks, room);
  return chunks_;
}

ScheduledChunk Scheduler::next_chunk(Sequence& sequence, Room room) const {
  const int64_t without_logits = std::max<int64_t>(0, sequence.first_logits() - sequence.computed);
  const int64_t count = std::min(
      {sequence.remaining(), room.rows, limits_.prefill_chunk, without_logits + room.logit_rows});
  return {&sequence, count, std::max<int64_t>(0, count - without_logits)};
}

bool Scheduler::make_room(size_t index, int64_t count) {
  Sequence& sequence = *running_[index];
  while (!sequence.blocks.cover(sequence.computed + count)) {
    preempt_youngest();
    if (index == running_.size()) return false;  // it was the youngest itself
  }
  return true;
}

void Scheduler::preempt_youngest() {
  QUERN_CHECK(running_.size() > 1);  // one sequence alone fits into the cache
  Owner youngest = std::move(running_.back());
  running_.pop_back();
  youngest->most_computed = std::max(youngest->most_computed, youngest->computed);
  youngest->computed = 0;
  youngest->blocks.release();
  waiting_.push_front(std::move(youngest));
  ++preemptions_;
}

void Scheduler::admit_waiting(BlockManager& blocks, Room room) {
  while (!waiting_.empty() && running() < limits_.sequences) {
    if (room.rows == 0 || room.logit_rows == 0) return;
    Sequence* const sequence = waiting_.front().get();
    if (!fits(*sequence, blocks)) return;
    if (!std::exchange(sequence->admitted, true)) prefix_queries_ += sequence->prompt_tokens;
    adopt_prefix(*sequence);
    QUERN_CHECK(sequence->blocks.cover(sequence->known()));
    running_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
    const ScheduledChunk chunk = next_chunk(*sequence, room);
    chunks_.push_back(chunk);
    room.rows -= chunk.count;
    room.logit_rows -= chunk.logit_rows;
  }
}

bool Scheduler::fits(const Sequence& sequence, const BlockManager& blocks) const {
  const int64_t shared = sequence.blocks.count_in_use(sequence.tokens, sequence.first_logits());
  const int64_t room_to_grow = running();
  return blocks_for(sequence.known()) - shared + room_to_grow <= blocks.free();
}

// What a preempted sequence gets back of its own is no hit: it was computed for it once.
void Scheduler::adopt_prefix(Sequence& sequence) {
  const int64_t end = sequence.blocks.adopt(sequence.tokens, sequence.first_logits());
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
  const bool ordered = std::is_sorted(running_.begin(), running_.end(), in_order_of_arrival) &&
                       std::is_sorted(waiting_.begin(), waiting_.end(), in_order_of_arrival);
  const bool older_run =
      running_.empty() || waiting_.empty() || running_.back()->id < waiting_.front()->id;
  const bool waiting_own_nothing =
      std::all_of(waiting_.begin(), waiting_.end(), [](const Owner& sequence) {
        return sequence->blocks.size() == 0 && sequence->computed == 0;
      });
  const bool running_are_covered =
      std::all_of(running_.begin(), running_.end(), [](const Owner& sequence) {
        return blocks_for(sequence->computed) <= sequence->blocks.size();
      });
  return ordered && older_run && waiting_own_nothing && running_are_covered;
}

}  // namespace quern
