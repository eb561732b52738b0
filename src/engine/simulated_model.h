// A model without weights: random logits from a seed, a key-value cache that tells when it is used
// wrongly, and a cost in time, so that the real scheduler runs in tests and in plans.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "model/model.h"

namespace quern {

// Time of one step: step_ns + row_ns * rows + position_ns * cached positions read.
struct SimulatedCost {
  int64_t step_ns = 0;
  int64_t row_ns = 0;
  int64_t position_ns = 0;
};

struct SimulatedModelOptions {
  uint64_t seed = 0;
  int64_t vocabulary = 64;
  int64_t hidden = 4;
  int64_t max_context = 4096;
  std::vector<int32_t> eos_tokens;
  float logit_range = 4.0f;  // logits and hidden states are uniform in [0, logit_range)
  ModelLimits limits;
  SimulatedCost cost;
  std::optional<int32_t> nan_token;    // a sequence that holds it has logits that are not numbers
  std::optional<int32_t> throw_token;  // a batch that holds it throws std::runtime_error
};

// The logits and hidden states at a position are a hash of every token of the sequence up to it,
// each of them read back through the block table from a simulated cache. A stale or shared block, a
// wrong position or a skipped token therefore gives other tokens.
class SimulatedModel final : public Model {
 public:
  // Moves `clock`, which may be nullptr, by the cost of each step.
  SimulatedModel(SimulatedModelOptions options, ManualClock* clock);

  const ModelSpec& spec() const override { return spec_; }

  const ModelLimits& limits() const override { return options_.limits; }

  void forward(const Batch& batch, Tensor logits) override;

  // The largest batch seen, in rows and in logit rows.
  int64_t most_rows() const { return most_rows_; }

  int64_t most_logit_rows() const { return most_logit_rows_; }

 private:
  struct Slot {
    int32_t token = -1;
    int32_t position = -1;
  };

  Slot& slot(const SequenceSpan& sequence, int64_t position);
  void store(const Batch& batch, const SequenceSpan& sequence);
  // Calls write(sequence, position, index) for each of the wanted rows.
  void for_rows(
      const Batch& batch,
      std::span<const int32_t> wanted,
      FunctionRef<void(const SequenceSpan& sequence, int64_t position, int64_t index)> write);
  // Numbers in [0, logit_range), a hash of the sequence up to the position; `stream` tells uses
  // apart.
  void write_random(const SequenceSpan& sequence,
                    int64_t position,
                    uint64_t stream,
                    std::span<float> out);
  void spend_time(const Batch& batch);

  SimulatedModelOptions options_;
  ModelSpec spec_;
  ManualClock* clock_;
  std::vector<Slot> cache_;  // [kv_blocks, kKvBlockTokens]
  int64_t most_rows_ = 0;
  int64_t most_logit_rows_ = 0;
};

}  // namespace quern
