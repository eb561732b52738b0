// One request on its way through the engine.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/block_manager.h"
#include "engine/request.h"
#include "engine/speculation.h"
#include "engine/stop_matcher.h"
#include "text/detokenizer.h"

namespace quern {

// What the draft model holds of a sequence, see Drafter.
struct Drafted {
  std::optional<BlockTable> blocks;  // of the draft model's cache
  int64_t computed = 0;              // positions that lie there
  int64_t text_tokens = 0;           // how many were known when it guessed last
  std::vector<int32_t> guesses;      // and what it guessed then
};

// Owns its cache blocks and everything that its next token depends on.
struct Sequence {
  // The request's prompt moves into `tokens`. `tokenizer` may be nullptr.
  Sequence(RequestId id_in, Request request_in, BlockManager& manager, const Tokenizer* tokenizer)
      : id(id_in),
        request(std::move(request_in)),
        tokens(std::move(request.prompt)),
        prompt_tokens(static_cast<int64_t>(tokens.size())),
        blocks(manager, blocks_for(prompt_tokens + request.max_tokens), request.cache_salt),
        stops(request.stop) {
    tokens.reserve(static_cast<size_t>(prompt_tokens + request.max_tokens));
    if (tokenizer != nullptr) detokenizer.emplace(*tokenizer);
    if (request.prompt_logprobs) prompt_logprobs.reserve(static_cast<size_t>(prompt_tokens - 1));
  }

  int64_t known() const { return static_cast<int64_t>(tokens.size()); }

  int64_t output_tokens() const { return known() - prompt_tokens; }

  // Tokens whose keys and values are still to be computed.
  int64_t remaining() const { return known() - computed; }

  // The first position whose logits, or hidden states for an embedding, are still wanted; all up to
  // the last known one are.
  int64_t first_wanted() const {
    if (request.embedding == Pooling::kMean) return pooled_tokens;
    const bool of_prompt = request.prompt_logprobs && output_tokens() == 0;
    return of_prompt ? static_cast<int64_t>(prompt_logprobs.size()) : known() - 1;
  }

  RequestId id;
  Request request;              // its prompt is empty: see tokens
  std::vector<int32_t> tokens;  // prompt and output
  int64_t prompt_tokens;
  int64_t computed = 0;       // the first `computed` tokens lie in the cache
  int64_t most_computed = 0;  // before any preemption
  int64_t cached_tokens = 0;  // of the prompt, that lay in the cache and were never computed
  BlockTable blocks;
  std::optional<Detokenizer> detokenizer;
  StopMatcher stops;
  std::vector<Logprobs> prompt_logprobs;  // gathered so far, of prompt[1] and on
  std::vector<double> pooled;             // [hidden]: the sum of hidden states gathered so far
  int64_t pooled_tokens = 0;              // of how many
  std::vector<int32_t> draft;             // guesses of what follows `tokens`
  Acceptance acceptance;                  // of its guesses so far
  Drafted drafted;
  Timing timing;
  bool admitted = false;  // took blocks, if only to lose them again
  bool started = false;   // was in a batch
  bool cancelled = false;
  bool shortened = false;  // max_tokens chose tokens, so that the constraint is met in time
};

}  // namespace quern
