// Decides what each step computes: continuous batching under one token budget.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "base/function_ref.h"
#include "base/result.h"
#include "engine/block_manager.h"
#include "engine/sequence.h"

namespace quern {

struct SchedulerLimits {
  int64_t batch_tokens = 0;   // of one step; at least `sequences`
  int64_t logit_rows = 0;     // of one step; at least `sequences`
  int64_t sequences = 0;      // running at once
  int64_t waiting = 0;        // accepted and not yet running; the preempted are not counted
  int64_t prefill_chunk = 0;  // tokens of one prompt in one step; 0: batch_tokens
};

// The next `count` tokens of a sequence, from sequence->computed on; their blocks are there. The
// logits of the last `logit_rows` of them are wanted.
struct ScheduledChunk {
  Sequence* sequence = nullptr;
  int64_t count = 0;
  int64_t logit_rows = 0;

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
// First come, first served: running sequences are older than waiting ones, and both queues are in
// order of arrival. In a step the running ones are served in that order; when blocks run out the
// youngest is preempted (its blocks are freed, its tokens kept, it waits first in line). Then, if
// nothing was preempted, waiting ones are admitted while budget lasts and the blocks of all their
// known tokens are free, beside one block for each running sequence to grow into. A sequence leaves
// a row to each one behind it. So the oldest always advances, every running one that keeps its
// blocks does in every step, and nobody starves. Owner thread only.
class Scheduler {
 public:
  explicit Scheduler(const SchedulerLimits& limits);

  // Appends to the waiting queue. Requires that the sequence alone fits into the cache. Errors:
  // kExhausted when the queue is full.
  Result<Unit> add(std::unique_ptr<Sequence> sequence);

  // The chunks of the next step, valid until the next call, each as long as its sequence lives.
  // Their sums are at most batch_tokens and logit_rows; empty only when idle.
  std::span<const ScheduledChunk> schedule(BlockManager& blocks);

  // Takes the sequence out of its queue and destroys it, blocks and all.
  void remove(const Sequence& sequence);

  // The oldest sequence, running or waiting, that is wanted; or nullptr.
  Sequence* find(FunctionRef<bool(const Sequence&)> wanted);

  bool idle() const { return running_.empty() && waiting_.empty(); }

  int64_t running() const { return static_cast<int64_t>(running_.size()); }

  int64_t waiting() const { return static_cast<int64_t>(waiting_.size()); }

  int64_t preemptions() const { return preemptions_; }

  // Prompt tokens of all that were admitted, once each, and how many of them came from the cache.
  int64_t prefix_queries() const { return prefix_queries_; }

  int64_t prefix_hits() const { return prefix_hits_; }

  // Blocks owned by all sequences; a shared one counts for each.
  int64_t owned_blocks() const;

  // Whether both queues are in order of arrival, the running own the blocks of what they computed
  // and the waiting own none.
  bool consistent() const;

 private:
  // What a step has left to give.
  struct Room {
    int64_t rows = 0;
    int64_t logit_rows = 0;
  };

  bool fits(const Sequence& sequence, const BlockManager& blocks) const;
  void adopt_prefix(Sequence& sequence);
  ScheduledChunk next_chunk(Sequence& sequence, Room room) const;
  // Whether the blocks for the next `count` tokens of running_[index] could be had, preempting
  // younger sequences, in the end itself, as needed.
  bool make_room(size_t index, int64_t count);
  void preempt_youngest();
  void admit_waiting(BlockManager& blocks, Room room);

  SchedulerLimits limits_;
  std::vector<std::unique_ptr<Sequence>> running_;
  std::deque<std::unique_ptr<Sequence>> waiting_;
  std::vector<ScheduledChunk> chunks_;
  int64_t preemptions_ = 0;
  int64_t prefix_queries_ = 0;
  int64_t prefix_hits_ = 0;
};

}  // namespace quern
