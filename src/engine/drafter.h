// Guesses the next tokens of sequences with a smaller model of the same vocabulary.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/clock.h"
#include "engine/block_manager.h"
#include "engine/sampler.h"
#include "engine/sequence.h"
#include "model/model.h"
#include "tensor/buffer.h"

namespace quern {

// A sequence that wants guesses: up to `length` tokens behind sequence->tokens.
struct DraftJob {
  Sequence* sequence = nullptr;
  int64_t length = 0;
};

// Each guess is what the draft model would sample with the request's own parameters and random
// numbers: where both models give a token the same probability, they choose it together, at any
// temperature. What the draft model computed of a sequence stays in its own cache, in
// Sequence::drafted, as long as the guesses turn out right.
//
// Guesses never change a sequence's tokens, so whatever goes wrong here (no free block, a model
// that throws, logits that are no numbers) costs guesses and nothing else. Memory is taken at
// construction and for a sequence's first guess. Owner thread only.
class Drafter {
 public:
  // Borrows the model, whose cache nobody else may use, and the clock. No more jobs than the
  // model's max_logit_rows and max_batch_tokens are served in one step.
  Drafter(Model& model, const Clock& clock);

  // Puts up to `length` guesses into each sequence's draft, which may stay empty: while the draft
  // model still reads the sequence, and at the end of a text.
  void guess(std::span<const DraftJob> jobs);

  // What one guess for each of the sequences takes, as an average that forgets; 0 until measured.
  double round_ns() const { return round_ns_; }

  // Whether every block of its cache is either free or owned by a sequence.
  bool consistent() const { return blocks_.consistent(); }

  // Blocks that no sequence owns, and all.
  int64_t free_blocks() const { return blocks_.free(); }

  int64_t total_blocks() const { return blocks_.total(); }

 private:
  static constexpr double kWeight = 1.0 / 16;

  // A sequence that still gets guesses in this call.
  struct Row {
    DraftJob job;
    int64_t count = 0;     // of its tokens in this round
    bool is_read = false;  // to its end, so that the round's logits give its next guess
  };

  bool prepare(const DraftJob& job);
  void fill_batch();
  // Runs a round for rows_; false when the model failed.
  bool forward();
  void sample();
  std::optional<int32_t> sample(const Sequence& sequence, int64_t logit_row);
  // Whether no more is to be guessed for it in this call.
  bool is_done(const Row& row) const;

  Model& model_;
  const Clock& clock_;
  BlockManager blocks_;
  Sampler sampler_;
  size_t most_rows_ = 0;  // of a round
  double round_ns_ = 0;

  // Of one call, reused.
  std::vector<Row> rows_;
  std::vector<int32_t> tokens_, positions_, logit_rows_;
  std::vector<SequenceSpan> spans_;
  std::vector<int32_t> text_;  // a sequence's tokens and its guesses
  FloatMatrix logits_;         // [max_logit_rows, vocabulary]
};

}  // namespace quern
