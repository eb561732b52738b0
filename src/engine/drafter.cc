#include "engine/drafter.h"

#include <algorithm>
#include <exception>

namespace quern {
namespace {

// The token at a position of a sequence with its guesses.
int32_t token_at(const Sequence& sequence, int64_t position) {
  const auto index = static_cast<size_t>(position);
  return index < sequence.tokens.size() ? sequence.tokens[index]
                                        : sequence.draft[index - sequence.tokens.size()];
}

int64_t length_of(const Sequence& sequence) {
  return sequence.known() + static_cast<int64_t>(sequence.draft.size());
}

// How many tokens of the sequence the draft model's cache holds, its last one not counted: what
// follows that one is to be guessed. A guess that was wrong ends it.
int64_t still_valid(const Sequence& sequence) {
  const Drafted& drafted = sequence.drafted;
  int64_t valid = drafted.text_tokens;
  for (const int32_t guess : drafted.guesses) {
    if (valid >= sequence.known() || sequence.tokens[static_cast<size_t>(valid)] != guess) break;
    ++valid;
  }
  return std::min({drafted.computed, valid, sequence.known() - 1});
}

}  // namespace

Drafter::Drafter(Model& model, const Clock& clock)
    : model_(model),
      clock_(clock),
      blocks_(model.limits().kv_blocks, PrefixCaching::kOn),
      sampler_(model.spec().vocabulary),
      logits_(model.limits().max_logit_rows, model.spec().vocabulary) {
  const ModelLimits& limits = model.limits();
  const auto rows = static_cast<size_t>(limits.max_batch_tokens);
  most_rows_ = static_cast<size_t>(std::min(limits.max_logit_rows, limits.max_batch_tokens));
  rows_.reserve(most_rows_);
  spans_.reserve(most_rows_);
  logit_rows_.reserve(most_rows_);
  tokens_.reserve(rows);
  positions_.reserve(rows);
  text_.reserve(static_cast<size_t>(model.spec().max_context));
}

void Drafter::guess(std::span<const DraftJob> jobs) {
  rows_.clear();
  for (const DraftJob& job : jobs) {
    if (rows_.size() < most_rows_ && prepare(job)) rows_.push_back({.job = job});
  }
  while (!rows_.empty() && forward()) {
    sample();
    std::erase_if(rows_, [&](const Row& row) { return is_done(row); });
  }
  for (const DraftJob& job : jobs) {
    Drafted& drafted = job.sequence->drafted;
    drafted.text_tokens = job.sequence->known();
    drafted.guesses = job.sequence->draft;
  }
}

bool Drafter::prepare(const DraftJob& job) {
  Sequence& sequence = *job.sequence;
  Drafted& drafted = sequence.drafted;
  if (!drafted.blocks) {
    const int64_t longest = sequence.prompt_tokens + sequence.request.max_tokens;
    drafted.blocks.emplace(blocks_, blocks_for(longest), sequence.request.cache_salt);
    drafted.guesses.reserve(sequence.draft.capacity());
  }
  drafted.computed = still_valid(sequence);
  drafted.blocks->publish(sequence.tokens, drafted.computed);
  const int64_t adopted = drafted.blocks->adopt(sequence.tokens, sequence.known() - 1);
  drafted.computed = std::max(drafted.computed, adopted);
  return drafted.blocks->cover(sequence.known() + job.length - 1);
}

void Drafter::fill_batch() {
  tokens_.clear();
  positions_.clear();
  spans_.clear();
  logit_rows_.clear();
  // Each gets a row, whatever those before it still lack.
  int64_t spare = model_.limits().max_batch_tokens - std::ssize(rows_);
  for (Row& row : rows_) {
    const Sequence& sequence = *row.job.sequence;
    const int64_t begin = sequence.drafted.computed;
    const int64_t lacking = length_of(sequence) - begin;
    row.count = std::min(lacking, 1 + spare);
    row.is_read = row.count == lacking;
    spare -= row.count - 1;
    spans_.push_back({.row_begin = std::ssize(tokens_),
                      .row_count = row.count,
                      .position_begin = begin,
                      .block_table = sequence.drafted.blocks->ids()});
    for (int64_t i = begin; i < begin + row.count; ++i) {
      tokens_.push_back(token_at(sequence, i));
      positions_.push_back(static_cast<int32_t>(i));
    }
    if (row.is_read) logit_rows_.push_back(static_cast<int32_t>(std::ssize(tokens_) - 1));
  }
}

bool Drafter::forward() {
  fill_batch();
  const int64_t start_ns = clock_.now_ns();
  try {
    model_.forward({.tokens = tokens_,
                    .positions = positions_,
                    .sequences = spans_,
                    .logit_rows = logit_rows_},
                   logits_.tensor().slice_rows(0, std::ssize(logit_rows_)));
  } catch (const std::exception&) {
    return false;
  }
  const auto ns = static_cast<double>(clock_.now_ns() - start_ns);
  if (tokens_.size() == rows_.size()) {  // nobody had a text to read
    round_ns_ += (round_ns_ == 0 ? 1 : kWeight) * (ns - round_ns_);
  }
  return true;
}

void Drafter::sample() {
  int64_t logit_row = 0;
  for (Row& row : rows_) {
    Sequence& sequence = *row.job.sequence;
    sequence.drafted.computed += row.count;
    if (!row.is_read) continue;
    const std::optional<int32_t> token = sample(sequence, logit_row++);
    if (token) {
      sequence.draft.push_back(*token);
    } else {
      row.job.length = 0;
    }
  }
}

std::optional<int32_t> Drafter::sample(const Sequence& sequence, int64_t logit_row) {
  text_ = sequence.tokens;
  text_.insert(text_.end(), sequence.draft.begin(), sequence.draft.end());
  const std::optional<SampledToken> sampled =
      sampler_.sample({logits_.row(logit_row), static_cast<size_t>(logits_.columns())},
                      {.params = sequence.request.sampling,
                       .tokens = text_,
                       .prompt_tokens = sequence.prompt_tokens,
                       .bias = sequence.request.logit_bias});
  return sampled ? std::optional<int32_t>(sampled->token) : std::nullopt;
}

bool Drafter::is_done(const Row& row) const {
  const std::vector<int32_t>& draft = row.job.sequence->draft;
  if (!row.is_read || std::ssize(draft) >= row.job.length) return true;
  const std::vector<int32_t>& ends = model_.spec().eos_tokens;
  return std::find(ends.begin(), ends.end(), draft.back()) != ends.end();
}

}  // namespace quern
