#include "engine/simulated_model.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <utility>

#include "base/check.h"
#include "base/random.h"

namespace quern {
namespace {

// Streams of random numbers.
constexpr uint64_t kLogits = 0;
constexpr uint64_t kHidden = 1;

}  // namespace

SimulatedModel::SimulatedModel(SimulatedModelOptions options, ManualClock* clock)
    : options_(std::move(options)),
      clock_(clock),
      cache_(static_cast<size_t>(options_.limits.kv_blocks * kKvBlockTokens)) {
  spec_.architecture = "Simulated";
  spec_.vocabulary = options_.vocabulary;
  spec_.hidden = options_.hidden;
  spec_.max_context = options_.max_context;
  spec_.eos_tokens = options_.eos_tokens;
}

void SimulatedModel::forward(const Batch& batch, Tensor logits) {
  const auto rows = static_cast<int64_t>(batch.tokens.size());
  const auto logit_rows = static_cast<int64_t>(batch.logit_rows.size());
  QUERN_CHECK(rows <= options_.limits.max_batch_tokens);
  QUERN_CHECK(logit_rows <= options_.limits.max_logit_rows);
  QUERN_CHECK(batch.positions.size() == batch.tokens.size() && logits.rows() == logit_rows);
  most_rows_ = std::max(most_rows_, rows);
  most_logit_rows_ = std::max(most_logit_rows_, logit_rows);
  spend_time(batch);
  for (const int32_t token : batch.tokens) {
    if (token == options_.throw_token) throw std::runtime_error("a token that cannot be computed");
  }
  for (const SequenceSpan& sequence : batch.sequences) store(batch, sequence);
  for_rows(batch, batch.logit_rows, [&](const SequenceSpan& sequence, int64_t position, int64_t i) {
    write_random(sequence, position, kLogits,
                 {logits.f32_row(i), static_cast<size_t>(spec_.vocabulary)});
  });
  for_rows(batch, batch.hidden_rows,
           [&](const SequenceSpan& sequence, int64_t position, int64_t i) {
             write_random(sequence, position, kHidden,
                          {batch.hidden.f32_row(i), static_cast<size_t>(spec_.hidden)});
           });
}

void SimulatedModel::for_rows(
    const Batch& batch,
    std::span<const int32_t> wanted,
    FunctionRef<void(const SequenceSpan& sequence, int64_t position, int64_t index)> write) {
  size_t next = 0;
  for (const SequenceSpan& sequence : batch.sequences) {
    const int64_t row_end = sequence.row_begin + sequence.row_count;
    for (; next < wanted.size() && wanted[next] < row_end; ++next) {
      const int64_t row = wanted[next];
      QUERN_CHECK(row >= sequence.row_begin);
      write(sequence, sequence.position_begin + row - sequence.row_begin,
            static_cast<int64_t>(next));
    }
  }
  QUERN_CHECK(next == wanted.size());
}

SimulatedModel::Slot& SimulatedModel::slot(const SequenceSpan& sequence, int64_t position) {
  const auto index = static_cast<size_t>(position / kKvBlockTokens);
  QUERN_CHECK(index < sequence.block_table.size());
  const int64_t block = sequence.block_table[index];
  QUERN_CHECK(block >= 0 && block < options_.limits.kv_blocks);
  return cache_[static_cast<size_t>(block * kKvBlockTokens + position % kKvBlockTokens)];
}

void SimulatedModel::store(const Batch& batch, const SequenceSpan& sequence) {
  for (int64_t i = 0; i < sequence.row_count; ++i) {
    const auto row = static_cast<size_t>(sequence.row_begin + i);
    const int64_t position = sequence.position_begin + i;
    QUERN_CHECK(batch.positions[row] == position);
    slot(sequence, position) = {batch.tokens[row], batch.positions[row]};
  }
}

void SimulatedModel::write_random(const SequenceSpan& sequence,
                                  int64_t position,
                                  uint64_t stream,
                                  std::span<float> out) {
  uint64_t prefix = options_.seed;
  bool poisoned = false;
  for (int64_t p = 0; p <= position; ++p) {
    const Slot& read = slot(sequence, p);
    prefix = random_bits(prefix, static_cast<uint64_t>(read.token),
                         static_cast<uint64_t>(read.position));
    poisoned = poisoned || read.token == options_.nan_token;
  }
  for (size_t i = 0; i < out.size(); ++i) {
    const double uniform = random_uniform(prefix, stream, i);
    out[i] = static_cast<float>(uniform) * options_.logit_range;
  }
  if (poisoned) out[out.size() / 2] = std::numeric_limits<float>::quiet_NaN();
}

void SimulatedModel::spend_time(const Batch& batch) {
  if (clock_ == nullptr) return;
  int64_t positions = 0;
  for (const SequenceSpan& sequence : batch.sequences) {
    positions += sequence.position_begin + sequence.row_count;
  }
  const SimulatedCost& cost = options_.cost;
  clock_->advance_ns(cost.step_ns + cost.row_ns * static_cast<int64_t>(batch.tokens.size()) +
                     cost.position_ns * positions);
}

}  // namespace quern
