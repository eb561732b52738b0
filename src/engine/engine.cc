#include "engine/engine.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <utility>

#include <fmt/format.h>

namespace quern {
namespace {

// The options with what they leave open filled in from the model.
EngineOptions resolve(EngineOptions options, const ModelLimits& limits) {
  if (options.max_batch_tokens == 0) options.max_batch_tokens = limits.max_batch_tokens;
  if (options.max_sequences == 0) {
    options.max_sequences = std::min(limits.max_logit_rows, options.max_batch_tokens);
  }
  QUERN_CHECK(options.max_batch_tokens <= limits.max_batch_tokens);
  QUERN_CHECK(options.max_sequences <= limits.max_logit_rows);
  QUERN_CHECK(limits.kv_blocks >= 1);
  const SpeculationOptions& speculation = options.speculation;
  QUERN_CHECK(speculation.max_draft >= 0 && speculation.min_ngram >= 1);
  QUERN_CHECK(speculation.min_ngram <= speculation.max_ngram);
  return options;
}

bool contains(std::span<const int32_t> tokens, int32_t token) {
  return std::find(tokens.begin(), tokens.end(), token) != tokens.end();
}

// The tokens that end a text, whoever names them.
std::vector<int32_t> end_tokens(const ModelSpec& spec, const Tokenizer* tokenizer) {
  std::vector<int32_t> tokens;
  const auto add = [&](std::span<const int32_t> ids) {
    for (const int32_t id : ids) {
      if (id >= 0 && id < spec.vocabulary && !contains(tokens, id)) tokens.push_back(id);
    }
  };
  add(spec.eos_tokens);
  if (tokenizer != nullptr) add(tokenizer->eos_ids());
  return tokens;
}

// The last `count` of `rows` rows.
void add_last_rows(int64_t count, int64_t rows, std::vector<int32_t>& out) {
  for (int64_t i = count; i > 0; --i) out.push_back(static_cast<int32_t>(rows - i));
}

std::string not_finite(int64_t position) {
  return fmt::format("the model's logits at position {} are not finite", position);
}

// A step that computes a part of a prompt is bound by arithmetic, so that a guess costs what it
// brings at most; and its time says nothing of what a guess costs in another.
bool only_decodes(std::span<const ScheduledChunk> chunks) {
  return std::all_of(chunks.begin(), chunks.end(), [](const ScheduledChunk& chunk) {
    return chunk.count == 1 && chunk.completes();
  });
}

}  // namespace

Engine::Engine(Model& model,
               const Tokenizer* tokenizer,
               const EngineOptions& options,
               const Clock& clock,
               Model* draft_model)
    : model_(model),
      tokenizer_(tokenizer),
      clock_(clock),
      options_(resolve(options, model.limits())),
      eos_tokens_(end_tokens(model.spec(), tokenizer)),
      blocks_(model.limits().kv_blocks, options_.prefix_caching),
      drafter_(draft_model == nullptr ? nullptr : std::make_unique<Drafter>(*draft_model, clock)),
      scheduler_({.batch_tokens = options_.max_batch_tokens,
                  .logit_rows = model.limits().max_logit_rows,
                  .sequences = options_.max_sequences,
                  .waiting = options_.max_waiting,
                  .waiting_tokens = options_.max_waiting_tokens,
                  .prefill_chunk = options_.max_prefill_chunk}),
      sampler_(model.spec().vocabulary),
      allowed_(static_cast<size_t>((model.spec().vocabulary + 31) / 32)),
      logits_(model.limits().max_logit_rows, model.spec().vocabulary),
      hidden_(options_.max_batch_tokens, model.spec().hidden) {
  QUERN_CHECK(draft_model == nullptr || draft_model->spec().vocabulary == model.spec().vocabulary);
  const auto rows = static_cast<size_t>(options_.max_batch_tokens);
  const auto sequences = static_cast<size_t>(options_.max_sequences);
  tokens_.reserve(rows);
  positions_.reserve(rows);
  logit_rows_.reserve(static_cast<size_t>(logits_.rows()));
  hidden_rows_.reserve(rows);
  spans_.reserve(sequences);
  jobs_.reserve(sequences);
  failures_.resize(sequences);
  banned_.reserve(eos_tokens_.size() + kMaxStopTokens);
}

Result<RequestId> Engine::submit(Request request) {
  const Result<Unit> valid = check(request);
  if (!valid) {
    ++counters_.refused_invalid;
    return valid.error();
  }
  auto sequence = std::make_unique<Sequence>(last_id_ + 1, std::move(request), blocks_, tokenizer_);
  sequence->timing.submitted_ns = clock_.now_ns();
  if (sequence->request.embedding) {
    sequence->pooled.resize(static_cast<size_t>(model_.spec().hidden));
  } else {
    sequence->draft.reserve(static_cast<size_t>(options_.speculation.max_draft));
  }
  sequence->acceptance = acceptance_;
  QUERN_TRY(scheduler_.add(std::move(sequence)));
  ++counters_.accepted;
  return ++last_id_;
}

Result<Unit> Engine::check(const Request& request) const {
  QUERN_TRY(validate(request, {.vocabulary = model_.spec().vocabulary,
                               .context_tokens = model_.spec().max_context,
                               .cache_tokens = blocks_.total() * kKvBlockTokens}));
  if (tokenizer_ != nullptr || request.stop.empty()) return Unit{};
  return Error{ErrorCode::kInvalidArgument,
               "stop needs text, and the model was loaded without a tokenizer"};
}

void Engine::cancel(RequestId id) {
  Sequence* sequence = scheduler_.find([&](const Sequence& s) { return s.id == id; });
  if (sequence != nullptr) sequence->cancelled = true;
}

bool Engine::step(EventSink sink) {
  const int64_t start_ns = clock_.now_ns();
  end_cancelled(sink);
  end_expired(sink);
  const std::span<ScheduledChunk> chunks = scheduler_.schedule(blocks_);
  if (chunks.empty()) return !idle();
  guess(chunks);
  run(chunks);
  commit(chunks, sink);
  counters_.last_step_ns = clock_.now_ns() - start_ns;
  return true;
}

void Engine::end_cancelled(EventSink sink) {
  const auto cancelled = [](const Sequence& sequence) { return sequence.cancelled; };
  while (Sequence* sequence = scheduler_.find(cancelled)) {
    finish(*sequence, {FinishReason::kCancelled, {}, {}}, sink);
  }
}

void Engine::end_expired(EventSink sink) {
  const int64_t now_ns = clock_.now_ns();
  const auto expired = [now_ns](const Sequence& sequence) {
    const std::optional<int64_t>& deadline_ns = sequence.request.deadline_ns;
    return !sequence.started && deadline_ns && *deadline_ns < now_ns;
  };
  while (Sequence* sequence = scheduler_.find(expired)) {
    finish(*sequence, {FinishReason::kExpired, {}, {}}, sink);
  }
}

void Engine::guess(std::span<ScheduledChunk> chunks) {
  if (options_.speculation.max_draft == 0) return;
  draft_policy_.begin_step();
  for (const ScheduledChunk& chunk : chunks) chunk.sequence->draft.clear();
  if (!only_decodes(chunks)) return;
  if (drafter_ == nullptr) {
    guess_from_texts(chunks);
  } else {
    guess_from_draft_model(chunks);
  }
}

int64_t Engine::most_guesses(const Sequence& sequence) const {
  if (sequence.request.constraint || sequence.request.embedding) return 0;
  // The last token of an answer is never computed.
  const int64_t left = sequence.request.max_tokens - sequence.output_tokens() - 1;
  return std::min(options_.speculation.max_draft, left);
}

void Engine::guess_from_texts(std::span<ScheduledChunk> chunks) {
  for (ScheduledChunk& chunk : chunks) {
    Sequence& sequence = *chunk.sequence;
    const int64_t most = most_guesses(sequence);
    if (most <= 0) continue;
    guess_from_text(sequence.tokens, options_.speculation, most, sequence.draft);
    const auto found = static_cast<int64_t>(sequence.draft.size());
    scheduler_.add_guesses(
        chunk, draft_policy_.length(sequence.acceptance.rate(), std::ssize(chunks), found));
  }
}

void Engine::guess_from_draft_model(std::span<ScheduledChunk> chunks) {
  jobs_.clear();
  for (const ScheduledChunk& chunk : chunks) {
    Sequence& sequence = *chunk.sequence;
    const int64_t most = most_guesses(sequence);
    if (most <= 0) continue;
    const int64_t length = draft_policy_.length(sequence.acceptance.rate(), std::ssize(chunks),
                                                most, drafter_->round_ns());
    if (length > 0) jobs_.push_back({&sequence, length});
  }
  const int64_t start_ns = clock_.now_ns();
  drafter_->guess(jobs_);
  counters_.draft_ns += clock_.now_ns() - start_ns;
  for (ScheduledChunk& chunk : chunks) {
    scheduler_.add_guesses(chunk, std::ssize(chunk.sequence->draft));
  }
}

void Engine::run(std::span<ScheduledChunk> chunks) {
  const int64_t start_ns = clock_.now_ns();
  count(chunks, start_ns);
  for (size_t i = 0; i < chunks.size(); ++i) failures_[i].clear();
  try {
    forward(chunks, {});
  } catch (const std::exception&) {
    run_one_by_one(chunks);
  }
  const int64_t forward_ns = clock_.now_ns() - start_ns;
  counters_.forward_ns += forward_ns;
  if (only_decodes(chunks)) draft_policy_.observe(counters_.iteration_tokens, forward_ns);
}

void Engine::count(std::span<const ScheduledChunk> chunks, int64_t start_ns) {
  counters_.iteration_tokens = 0;
  for (const ScheduledChunk& chunk : chunks) {
    Sequence& sequence = *chunk.sequence;
    counters_.iteration_tokens += chunk.rows();
    counters_.draft_tokens += chunk.guesses;
    counters_.draft_steps += chunk.guesses > 0 ? 1 : 0;
    counters_.recomputed_tokens +=
        std::clamp<int64_t>(sequence.most_computed - sequence.computed, 0, chunk.count);
    if (std::exchange(sequence.started, true)) continue;
    sequence.timing.scheduled_ns = start_ns;
    counters_.prompt_tokens += sequence.prompt_tokens;
  }
  counters_.rows += counters_.iteration_tokens;
  ++counters_.steps;
}

// Finds out which sequence the model fails on. Computing a position again writes the same keys and
// values, and a row's result does not depend on its batch, so the others are as if nothing was. A
// guess must fail nobody, so they are left out.
void Engine::run_one_by_one(std::span<ScheduledChunk> chunks) {
  ResultRows first;
  for (size_t i = 0; i < chunks.size(); ++i) {
    chunks[i].logit_rows -= std::exchange(chunks[i].guesses, 0);
    try {
      forward(chunks.subspan(i, 1), first);
    } catch (const std::exception& failure) {
      failures_[i] = fmt::format("the model failed: {}", failure.what());
    }
    first.skip(chunks[i]);
  }
}

void Engine::forward(std::span<const ScheduledChunk> chunks, ResultRows first) {
  fill_batch(chunks);
  const auto logit_rows = static_cast<int64_t>(logit_rows_.size());
  const auto hidden_rows = static_cast<int64_t>(hidden_rows_.size());
  model_.forward({.tokens = tokens_,
                  .positions = positions_,
                  .sequences = spans_,
                  .logit_rows = logit_rows_,
                  .hidden_rows = hidden_rows_,
                  .hidden = hidden_.tensor().slice_rows(first.hidden, hidden_rows)},
                 logits_.tensor().slice_rows(first.logit, logit_rows));
}

void Engine::fill_batch(std::span<const ScheduledChunk> chunks) {
  tokens_.clear();
  positions_.clear();
  spans_.clear();
  logit_rows_.clear();
  hidden_rows_.clear();
  for (const ScheduledChunk& chunk : chunks) {
    const Sequence& sequence = *chunk.sequence;
    spans_.push_back({.row_begin = static_cast<int64_t>(tokens_.size()),
                      .row_count = chunk.rows(),
                      .position_begin = sequence.computed,
                      .block_table = sequence.blocks.ids()});
    const auto first = sequence.tokens.begin() + sequence.computed;
    tokens_.insert(tokens_.end(), first, first + chunk.count);
    tokens_.insert(tokens_.end(), sequence.draft.begin(), sequence.draft.begin() + chunk.guesses);
    for (int64_t i = 0; i < chunk.rows(); ++i) {
      positions_.push_back(static_cast<int32_t>(sequence.computed + i));
    }
    add_last_rows(chunk.logit_rows, std::ssize(tokens_), logit_rows_);
    add_last_rows(chunk.hidden_rows, std::ssize(tokens_), hidden_rows_);
  }
}

void Engine::commit(std::span<const ScheduledChunk> chunks, EventSink sink) {
  ResultRows next;
  for (size_t i = 0; i < chunks.size(); ++i) {
    const ResultRows first = next;
    next.skip(chunks[i]);
    if (failures_[i].empty()) {
      commit_chunk(chunks[i], first, sink);
    } else {
      finish(*chunks[i].sequence, {FinishReason::kError, {}, failures_[i]}, sink);
    }
  }
}

void Engine::commit_chunk(const ScheduledChunk& chunk, ResultRows first, EventSink sink) {
  Sequence& sequence = *chunk.sequence;
  if (sequence.request.embedding) return commit_embedding(chunk, first.hidden, sink);
  const bool completes = chunk.completes();
  if (!gather_prompt_logprobs(chunk, first.logit)) {
    finish(sequence, {FinishReason::kError, {}, not_finite(sequence.first_wanted())}, sink);
    return;
  }
  advance(sequence, chunk.count);
  if (completes) commit_tokens(chunk, first.logit + chunk.logit_rows - 1 - chunk.guesses, sink);
}

// One token after the other, so that the sum does not depend on chunks.
void Engine::commit_embedding(const ScheduledChunk& chunk, int64_t hidden_row, EventSink sink) {
  Sequence& sequence = *chunk.sequence;
  const bool completes = chunk.completes();
  std::vector<double>& sum = sequence.pooled;
  for (int64_t i = 0; i < chunk.hidden_rows; ++i) {
    const float* row = hidden_.row(hidden_row + i);
    for (size_t c = 0; c < sum.size(); ++c) sum[c] += static_cast<double>(row[c]);
    ++sequence.pooled_tokens;
  }
  advance(sequence, chunk.count);
  if (!completes) return;
  EmbeddingEvent event{sequence.id, {}};
  for (const double value : sum) {
    event.embedding.push_back(
        static_cast<float>(value / static_cast<double>(sequence.pooled_tokens)));
  }
  if (!std::all_of(sum.begin(), sum.end(), [](double value) { return std::isfinite(value); })) {
    finish(sequence, {FinishReason::kError, {}, "the model's hidden states are not finite"}, sink);
    return;
  }
  sink(Event(std::move(event)));
  finish(sequence, {FinishReason::kStop, {}, {}}, sink);
}

void Engine::advance(Sequence& sequence, int64_t count) {
  sequence.computed += count;
  sequence.blocks.publish(sequence.tokens, sequence.computed);
}

bool Engine::gather_prompt_logprobs(const ScheduledChunk& chunk, int64_t logit_row) {
  Sequence& sequence = *chunk.sequence;
  if (!sequence.request.prompt_logprobs || sequence.output_tokens() > 0) return true;
  for (int64_t i = 0; i < chunk.logit_rows; ++i) {
    const auto next = static_cast<size_t>(sequence.first_wanted() + 1);
    if (next == sequence.tokens.size()) break;  // the last row gives the first sampled token
    std::optional<Logprobs> logprobs = logprobs_of(logits_at(logit_row + i), sequence.tokens[next],
                                                   *sequence.request.prompt_logprobs);
    if (!logprobs) return false;
    sequence.prompt_logprobs.push_back(std::move(*logprobs));
  }
  return true;
}

void Engine::commit_tokens(const ScheduledChunk& chunk, int64_t logit_row, EventSink sink) {
  Sequence& sequence = *chunk.sequence;
  const auto guesses = static_cast<int64_t>(sequence.draft.size());  // not all of them computed
  for (int64_t i = 0;; ++i) {
    std::optional<SampledToken> sampled = sample_or_fail(sequence, logit_row + i, sink);
    if (!sampled) return;
    const bool is_right = i < guesses && sampled->token == sequence.draft[static_cast<size_t>(i)];
    if (i < guesses) note_guess(sequence, is_right);
    const bool was_computed = is_right && i < chunk.guesses;
    if (was_computed) ++counters_.accepted_tokens;
    if (!commit_token(sequence, std::move(*sampled), sink)) return;
    if (!was_computed || sequence.cancelled) return;
    advance(sequence, 1);
  }
}

void Engine::note_guess(Sequence& sequence, bool right) {
  sequence.acceptance.observe(right);
  acceptance_.observe(right);
}

std::optional<SampledToken> Engine::sample_or_fail(Sequence& sequence,
                                                   int64_t logit_row,
                                                   EventSink sink) {
  std::string error;
  try {
    std::optional<SampledToken> sampled = sample(sequence, logit_row);
    if (sampled) return sampled;
    error = not_finite(sequence.known() - 1);
  } catch (const std::exception& failure) {  // one request's constraint harms no other
    error = fmt::format("the constraint failed: {}", failure.what());
  }
  finish(sequence, {FinishReason::kError, {}, std::move(error)}, sink);
  return std::nullopt;
}

bool Engine::commit_token(Sequence& sequence, SampledToken sampled, EventSink sink) {
  if (sequence.output_tokens() == 0) {
    sequence.timing.first_token_ns = clock_.now_ns();
    if (sequence.request.prompt_logprobs) {
      sink(Event(PromptLogprobsEvent{sequence.id, std::move(sequence.prompt_logprobs)}));
    }
  }
  sequence.tokens.push_back(sampled.token);
  ++counters_.completion_tokens;
  scheduler_.charge_output(sequence);
  TokenEvent event{sequence.id, sampled.token, {}, std::move(sampled.logprobs)};
  const std::optional<Ending> ending = append_text(sequence, event.text);
  sink(Event(std::move(event)));
  if (ending) finish(sequence, *ending, sink);
  return !ending;
}

std::optional<SampledToken> Engine::sample(Sequence& sequence, int64_t logit_row) {
  TokenConstraint* constraint = sequence.request.constraint.get();
  if (constraint == nullptr) return sample_among(sequence, logit_row, {});
  constraint->fill_mask(allowed_);
  std::optional<SampledToken> sampled = sample_among(sequence, logit_row, allowed_);
  if (sampled && ends_too_late(sequence, sampled->token)) {
    constraint->fill_closing_mask(allowed_);
    sampled = sample_among(sequence, logit_row, allowed_);
    sequence.shortened = true;
  }
  if (sampled) constraint->accept(sampled->token);
  return sampled;
}

bool Engine::ends_too_late(const Sequence& sequence, int32_t token) {
  TokenConstraint& constraint = *sequence.request.constraint;
  const int64_t left = sequence.request.max_tokens - sequence.output_tokens();
  return constraint.distance() <= left && constraint.distance_behind(token) >= left;
}

std::optional<SampledToken> Engine::sample_among(const Sequence& sequence,
                                                 int64_t logit_row,
                                                 std::span<const uint32_t> allowed) {
  const Request& request = sequence.request;
  std::span<const int32_t> banned = banned_tokens(sequence);
  if (!allowed.empty() && !any_left(allowed, banned)) banned = {};
  return sampler_.sample(logits_at(logit_row), {.params = request.sampling,
                                                .tokens = sequence.tokens,
                                                .prompt_tokens = sequence.prompt_tokens,
                                                .banned = banned,
                                                .top_logprobs = request.top_logprobs,
                                                .bias = request.logit_bias,
                                                .allowed = allowed});
}

std::span<const float> Engine::logits_at(int64_t logit_row) const {
  return {logits_.row(logit_row), static_cast<size_t>(logits_.columns())};
}

bool Engine::ends_text(const Sequence& sequence, int32_t token) const {
  return contains(sequence.request.stop_tokens, token) ||
         (sequence.request.eos == EosTokens::kStop && contains(eos_tokens_, token));
}

std::span<const int32_t> Engine::banned_tokens(const Sequence& sequence) {
  banned_.clear();
  if (sequence.output_tokens() < sequence.request.min_tokens) {
    banned_ = sequence.request.stop_tokens;
    if (sequence.request.eos == EosTokens::kStop) {
      banned_.insert(banned_.end(), eos_tokens_.begin(), eos_tokens_.end());
    }
  }
  return banned_;
}

bool Engine::any_left(std::span<const uint32_t> allowed, std::span<const int32_t> banned) const {
  if (banned.empty()) return true;
  const auto vocabulary = static_cast<int32_t>(model_.spec().vocabulary);
  for (int32_t token = 0; token < vocabulary; ++token) {
    const uint32_t word = allowed[static_cast<size_t>(token / 32)];
    if ((word >> (token % 32) & 1) != 0 && !contains(banned, token)) return true;
  }
  return false;
}

std::optional<Engine::Ending> Engine::append_text(Sequence& sequence, std::string& text) {
  const int32_t token = sequence.tokens.back();
  std::optional<Ending> ending;
  const TokenConstraint* constraint = sequence.request.constraint.get();
  const bool is_end = ends_text(sequence, token);
  if (is_end || (constraint != nullptr && constraint->ended())) {
    const bool whole = !sequence.shortened;
    ending = Ending{whole ? FinishReason::kStop : FinishReason::kLength, {}, {}};
  } else if (sequence.output_tokens() == sequence.request.max_tokens) {
    ending = Ending{FinishReason::kLength, {}, {}};
  }
  if (!sequence.detokenizer) return ending;

  std::string piece;  // a token that ends the text is no part of it
  if (!is_end) piece = sequence.detokenizer->push(token);
  if (ending) piece += sequence.detokenizer->finish();
  if (sequence.output_tokens() < sequence.request.min_tokens) {
    text = std::move(piece);
    return ending;
  }
  text = sequence.stops.push(piece);
  if (!sequence.stops.stopped().empty()) {
    return Ending{FinishReason::kStop, std::string(sequence.stops.stopped()), {}};
  }
  if (ending) text += sequence.stops.finish();
  return ending;
}

void Engine::finish(Sequence& sequence, Ending ending, EventSink sink) {
  FinishedEvent event{.request = sequence.id,
                      .reason = ending.reason,
                      .usage = {.prompt_tokens = sequence.prompt_tokens,
                                .completion_tokens = sequence.output_tokens(),
                                .cached_tokens = sequence.cached_tokens},
                      .timing = sequence.timing,
                      .stop = std::move(ending.stop),
                      .error = std::move(ending.error)};
  event.timing.finished_ns = clock_.now_ns();
  ++counters_.finished[static_cast<size_t>(ending.reason)];
  if (ending.reason == FinishReason::kError) sequence.blocks.retract();
  scheduler_.remove(sequence);
  sink(Event(std::move(event)));
}

EngineStats Engine::stats() const {
  EngineStats stats = counters_;
  stats.running = scheduler_.running();
  stats.waiting = scheduler_.waiting();
  stats.waiting_preempted = scheduler_.waiting_preempted();
  stats.waiting_tokens = scheduler_.waiting_tokens();
  stats.free_blocks = blocks_.free();
  stats.cached_blocks = blocks_.cached();
  stats.total_blocks = blocks_.total();
  stats.preemptions = scheduler_.preemptions();
  stats.refused_requests = scheduler_.refused_requests();
  stats.refused_tokens = scheduler_.refused_tokens();
  stats.refused = stats.refused_invalid + stats.refused_requests + stats.refused_tokens;
  stats.prefix_queries = scheduler_.prefix_queries();
  stats.prefix_hits = scheduler_.prefix_hits();
  return stats;
}

int64_t Engine::max_request_tokens() const {
  return std::min(model_.spec().max_context, blocks_.total() * kKvBlockTokens);
}

bool Engine::consistent() const {
  if (drafter_ != nullptr && !drafter_->consistent()) return false;
  return blocks_.consistent() && scheduler_.consistent() &&
         blocks_.references() == scheduler_.owned_blocks();
}

}  // namespace quern
