// Decides what each step computes: continuous batching under one token budget.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/function_ref.h"
#include "base/result.h"
#include "engine/block_manager.h"
#include "engine/fair_share.h"
#include "engine/sequence.h"

namespace quern {

struct SchedulerLimits {
  int64_t batch_tokens = 0;    // of one step; at least `sequences`
  int64_t logit_rows = 0;      // of one step; at least `sequences`
  int64_t sequences = 0;       // running at once
  int64_t waiting = 0;         // accepted and not yet running; the preempted are not counted
  int64_t waiting_tokens = 0;  // prompt tokens of those, unless one waits alone; 0: any number
  int64_t prefill_chunk = 0;   // tokens of one prompt in one step; 0: batch_tokens
};

// The next `count` tokens of a sequence, from sequence->computed on, and then the first `guesses`
// of its draft; their blocks are there. The logits of the last `logit_rows` of all are wanted, or,
// for an embedding, the hidden states of the last `hidden_rows`.
struct ScheduledChunk {
  Sequence* sequence = nullptr;
  int64_t count = 0;
  int64_t logit_rows = 0;
  int64_t guesses = 0;
  int64_t hidden_rows = 0;

  int64_t rows() const { return count + guesses; }

  // Whether the chunk ends with the last known token, so that its logits give the next one.
  bool completes() const { return count == sequence->remaining(); }
};

// There are no phases: a sequence asks for its tokens that are known and not yet computed, whether
// they are a prompt, what preemption lost, or the one token sampled last.
//
// What the prefix cache holds of a sequence's next tokens is taken from there, at admission and, as
// long as its prompt is being computed, at every step: what another one has computed meanwhile need
// not be computed again.
//
// Running sequences rank by priority, then by age, and in a step they are served in that order.
// When blocks run out the last in rank is preempted: its blocks are freed, its tokens kept, it
// waits before all of its priority that never ran. Then, if nothing was preempted, waiting ones are
// admitted while budget lasts and the blocks of all their known tokens are free, beside one block
// for each running sequence to grow into. One that waits with a higher priority than a running one
// has is admitted at its cost. A sequence leaves a row to each one behind it, so that every running
// one that keeps its blocks advances in every step.
//
// Of those that wait with equal priority the tenant that was served least goes first (fair_share.h;
// a prompt token that was computed counts one, an output token kOutputCharge), and its oldest
// request. The oldest of all is overtaken at most kMostOvertaken times on end. So within a priority
// nobody starves: the first in rank always advances, and the oldest gets its turn. A higher
// priority may hold a lower one back for as long as it has work. Owner thread only.
class Scheduler {
 public:
  explicit Scheduler(const SchedulerLimits& limits);

  // Appends to the waiting queue. Requires that the sequence alone fits into the cache. Errors:
  // kExhausted when the queue is full, by requests or by tokens.
  Result<Unit> add(std::unique_ptr<Sequence> sequence);

  // The chunks of the next step, valid until the next call, each as long as its sequence lives.
  // Their sums are at most batch_tokens and logit_rows; empty only when idle.
  std::span<ScheduledChunk> schedule(BlockManager& blocks);

  // Adds up to `guesses` to a chunk of the last schedule() that completes, as far as the step has
  // rows left and there are free blocks: nobody is preempted for a guess.
  void add_guesses(ScheduledChunk& chunk, int64_t guesses);

  // Notes that the sequence was served a token of output.
  void charge_output(const Sequence& sequence);

  // Takes the sequence out of its queue and destroys it, blocks and all.
  void remove(const Sequence& sequence);

  // A sequence, running or waiting, that is wanted; or nullptr.
  Sequence* find(FunctionRef<bool(const Sequence&)> wanted);

  bool idle() const { return running_.empty() && waiting_.empty(); }

  int64_t running() const { return static_cast<int64_t>(running_.size()); }

  int64_t waiting() const { return static_cast<int64_t>(waiting_.size()); }

  // Of the waiting: those that were preempted, and the prompt tokens of the others.
  int64_t waiting_preempted() const { return waiting() - waiting_new_; }

  int64_t waiting_tokens() const { return waiting_tokens_; }

  int64_t preemptions() const { return preemptions_; }

  // By add(), for want of places and of tokens.
  int64_t refused_requests() const { return refused_requests_; }

  int64_t refused_tokens() const { return refused_tokens_; }

  // Prompt tokens of all that were admitted, once each, and how many of them came from the cache.
  int64_t prefix_queries() const { return prefix_queries_; }

  int64_t prefix_hits() const { return prefix_hits_; }

  // Blocks owned by all sequences; a shared one counts for each.
  int64_t owned_blocks() const;

  // Whether the running are in order of rank and own the blocks of what they computed, and the
  // waiting are in order of arrival, own none and are counted right.
  bool consistent() const;

 private:
  static constexpr int64_t kOutputCharge = 2;  // as the paper weighs it
  static constexpr int kMostOvertaken = 32;

  // What a step has left to give.
  struct Room {
    int64_t rows = 0;
    int64_t logit_rows = 0;
  };

  bool fits(const Sequence& sequence, const BlockManager& blocks) const;
  void adopt_prefix(Sequence& sequence);
  // The most that the sequence may take of a step and leave a row to each of those behind it.
  ScheduledChunk next_chunk(Sequence& sequence, int64_t behind) const;
  void take(const ScheduledChunk& chunk);
  // Whether the blocks for the next `count` tokens of running_[index] could be had, preempting
  // those behind it, in the end itself, as needed.
  bool make_room(size_t index, int64_t count);
  void preempt_last();
  void admit_urgent(BlockManager& blocks);
  bool could_displace(const Sequence& sequence, const BlockManager& blocks) const;
  void admit_waiting(BlockManager& blocks);
  void admit(Sequence& sequence);
  // The next to be admitted. Requires that some wait.
  Sequence& next_waiting() const;
  bool goes_before(const Sequence& a, const Sequence& b) const;
  // The oldest that never ran, of that priority; nullptr when there is none.
  Sequence* oldest_new(int32_t priority) const;
  void count_admission(const Sequence& sequence);

  SchedulerLimits limits_;
  std::vector<std::unique_ptr<Sequence>> running_;  // in order of rank
  std::vector<std::unique_ptr<Sequence>> waiting_;  // in order of arrival
  std::vector<ScheduledChunk> chunks_;
  Room room_;  // what they leave of the step
  FairShare share_;
  int overtaken_ = 0;  // since the oldest had its turn
  int64_t waiting_new_ = 0;
  int64_t waiting_tokens_ = 0;
  int64_t refused_requests_ = 0;
  int64_t refused_tokens_ = 0;
  int64_t preemptions_ = 0;
  int64_t prefix_queries_ = 0;
  int64_t prefix_hits_ = 0;
};

}  // namespace quern
