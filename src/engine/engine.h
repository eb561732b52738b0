// The engine: requests in, tokens out, one step at a time, all on the thread that owns it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "engine/block_manager.h"
#include "engine/drafter.h"
#include "engine/request.h"
#include "engine/sampler.h"
#include "engine/scheduler.h"
#include "engine/speculation.h"
#include "model/model.h"
#include "tensor/buffer.h"
#include "text/tokenizer.h"

namespace quern {

struct EngineOptions {
  int64_t max_batch_tokens = 0;    // rows of one step; 0: what the model allows
  int64_t max_sequences = 0;       // running at once; 0: what the model allows
  int64_t max_waiting = 256;       // requests accepted but not yet running
  int64_t max_waiting_tokens = 0;  // prompt tokens of those, unless one waits alone; 0: any number
  int64_t max_prefill_chunk = 0;   // rows that one prompt may take of a step; 0: all
  PrefixCaching prefix_caching = PrefixCaching::kOn;
  SpeculationOptions speculation = {};
};

struct EngineStats {
  int64_t running = 0;
  int64_t waiting = 0;
  int64_t waiting_preempted = 0;  // of the waiting: they ran before
  int64_t waiting_tokens = 0;     // prompt tokens of the others
  int64_t free_blocks = 0;        // those that hold a prefix included
  int64_t cached_blocks = 0;      // of the free ones
  int64_t total_blocks = 0;

  // Of the last step:
  int64_t last_step_ns = 0;      // all of it, events included
  int64_t iteration_tokens = 0;  // rows computed

  // Since the start:
  int64_t steps = 0;
  int64_t forward_ns = 0;         // spent in the model
  int64_t rows = 0;               // computed, recomputation included
  int64_t recomputed_tokens = 0;  // computed before and lost to preemption
  int64_t prompt_tokens = 0;      // of requests that began to run
  int64_t completion_tokens = 0;
  int64_t preemptions = 0;
  int64_t prefix_queries = 0;   // prompt tokens looked up, once for each request, at admission
  int64_t prefix_hits = 0;      // of those, never computed for their request
  int64_t draft_ns = 0;         // spent in the draft model
  int64_t draft_steps = 0;      // of a sequence, with guesses
  int64_t draft_tokens = 0;     // guesses that were computed
  int64_t accepted_tokens = 0;  // of those, that were right
  int64_t accepted = 0;
  int64_t refused = 0;                    // by submit(), whatever the reason:
  int64_t refused_invalid = 0;            // it can never be served
  int64_t refused_requests = 0;           // max_waiting
  int64_t refused_tokens = 0;             // max_waiting_tokens
  int64_t finished[kFinishReasons] = {};  // by FinishReason
};

// A request's tokens depend on the request and the model alone: not on what else is in the batch,
// on preemption, chunks, cached prefixes, guesses or threads. Memory is taken at construction and
// at submit(); a step takes none but for the text of its events. Not thread-safe: one thread owns
// it.
class Engine {
 public:
  // Borrows all of them. With a draft model, which has the same vocabulary and whose cache is its
  // own, guesses come from it. Without a tokenizer events carry no text and stop strings are
  // refused. Requires options within model.limits() and a model with at least one cache block.
  Engine(Model& model,
         const Tokenizer* tokenizer,
         const EngineOptions& options,
         const Clock& clock,
         Model* draft_model = nullptr);

  // Accepts a request; its events come from later steps. Errors: those of validate();
  // kInvalidArgument for stop strings without a tokenizer; kExhausted when as many requests or
  // tokens wait as may.
  Result<RequestId> submit(Request request);

  // Ends the request at the start of the next step, with a FinishedEvent. An id that is not known
  // or has finished is ignored.
  void cancel(RequestId id);

  // Schedules one batch, runs it, commits its tokens. False when nothing was left to do.
  bool step(EventSink sink);

  bool idle() const { return scheduler_.idle(); }

  EngineStats stats() const;

  // The most that prompt and max_tokens of one request may come to.
  int64_t max_request_tokens() const;

  // Whether every block is either free or owned by running sequences, and the queues are in order.
  // For tests and an idle server.
  bool consistent() const;

 private:
  struct Ending {
    FinishReason reason;
    std::string stop;
    std::string error;
  };

  // Where a chunk's results begin in logits_ and hidden_.
  struct ResultRows {
    int64_t logit = 0;
    int64_t hidden = 0;

    void skip(const ScheduledChunk& chunk) {
      logit += chunk.logit_rows;
      hidden += chunk.hidden_rows;
    }
  };

  Result<Unit> check(const Request& request) const;
  void end_cancelled(EventSink sink);
  void end_expired(EventSink sink);
  // Guesses tokens where that is likely to pay.
  void guess(std::span<ScheduledChunk> chunks);
  void guess_from_texts(std::span<ScheduledChunk> chunks);
  void guess_from_draft_model(std::span<ScheduledChunk> chunks);
  int64_t most_guesses(const Sequence& sequence) const;
  void run(std::span<ScheduledChunk> chunks);
  void count(std::span<const ScheduledChunk> chunks, int64_t start_ns);
  void run_one_by_one(std::span<ScheduledChunk> chunks);
  void forward(std::span<const ScheduledChunk> chunks, ResultRows first);
  void fill_batch(std::span<const ScheduledChunk> chunks);
  void commit(std::span<const ScheduledChunk> chunks, EventSink sink);
  void commit_chunk(const ScheduledChunk& chunk, ResultRows first, EventSink sink);
  void commit_embedding(const ScheduledChunk& chunk, int64_t hidden_row, EventSink sink);
  // Takes what the chunk's logits say of the prompt; false when they are not finite.
  bool gather_prompt_logprobs(const ScheduledChunk& chunk, int64_t logit_row);
  // Takes tokens as long as they are what was guessed: each was computed from those before it.
  void commit_tokens(const ScheduledChunk& chunk, int64_t logit_row, EventSink sink);
  void note_guess(Sequence& sequence, bool right);
  // nullopt: the sequence was finished, because no token could be sampled.
  std::optional<SampledToken> sample_or_fail(Sequence& sequence, int64_t logit_row, EventSink sink);
  std::optional<SampledToken> sample(Sequence& sequence, int64_t logit_row);
  // The same among the tokens of a mask; empty: all.
  std::optional<SampledToken> sample_among(const Sequence& sequence,
                                           int64_t logit_row,
                                           std::span<const uint32_t> allowed);
  // Whether the constraint could be met within max_tokens so far, and no longer behind the token.
  static bool ends_too_late(const Sequence& sequence, int32_t token);
  // Whether the sequence goes on.
  bool commit_token(Sequence& sequence, SampledToken sampled, EventSink sink);
  // Counts `count` more tokens as computed.
  static void advance(Sequence& sequence, int64_t count);
  bool ends_text(const Sequence& sequence, int32_t token) const;
  // What min_tokens forbids.
  std::span<const int32_t> banned_tokens(const Sequence& sequence);
  // Whether a token is allowed and not banned.
  bool any_left(std::span<const uint32_t> allowed, std::span<const int32_t> banned) const;
  std::span<const float> logits_at(int64_t logit_row) const;
  // The text that the last token makes certain, and whether the sequence ends with it.
  std::optional<Ending> append_text(Sequence& sequence, std::string& text);
  void finish(Sequence& sequence, Ending ending, EventSink sink);

  Model& model_;
  const Tokenizer* tokenizer_;
  const Clock& clock_;
  EngineOptions options_;
  std::vector<int32_t> eos_tokens_;
  BlockManager blocks_;
  std::unique_ptr<Drafter> drafter_;  // nullptr: guesses come from the text
  Scheduler scheduler_;
  Sampler sampler_;
  DraftPolicy draft_policy_;
  Acceptance acceptance_;  // of all guesses; a sequence begins with it
  EngineStats counters_;
  RequestId last_id_ = 0;

  // One step's batch, reused.
  std::vector<int32_t> tokens_, positions_, logit_rows_, hidden_rows_;
  std::vector<SequenceSpan> spans_;
  std::vector<DraftJob> jobs_;
  std::vector<std::string> failures_;  // one for each chunk; empty: it ran
  std::vector<int32_t> banned_;
  std::vector<uint32_t> allowed_;  // [ceil(vocabulary / 32)]
  FloatMatrix logits_;             // [max_logit_rows, vocabulary]
  FloatMatrix hidden_;             // [max_batch_tokens, hidden]
};

}  // namespace quern
