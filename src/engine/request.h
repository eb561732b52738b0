// What a client asks of the engine, and what the engine tells it back.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/function_ref.h"
#include "base/result.h"
#include "text/token_constraint.h"

namespace quern {

using RequestId = uint64_t;

inline constexpr int kMaxStopStrings = 16;
inline constexpr int kMaxStopBytes = 1024;  // of one stop string
inline constexpr int kMaxStopTokens = 64;
inline constexpr int kMaxLogprobs = 20;
inline constexpr int kMaxLogitBiases = 1024;
inline constexpr int kMaxTenantWeight = 1000;

// How a token is chosen from its logits; sampler.h states the formulas and their order.
struct SamplingParams {
  float temperature = 1.0f;         // [0, 100]; 0: greedy
  int32_t top_k = 0;                // 0: all
  float top_p = 1.0f;               // (0, 1]
  float min_p = 0.0f;               // [0, 1]
  float repetition_penalty = 1.0f;  // (0, 10]
  float presence_penalty = 0.0f;    // [-2, 2]
  float frequency_penalty = 0.0f;   // [-2, 2]
  uint64_t seed = 0;
  uint64_t stream = 0;  // tells several answers to one prompt and seed apart

  bool greedy() const { return temperature == 0.0f; }
};

enum class EosTokens : uint8_t { kStop, kIgnore };

// How the hidden states of a prompt become one vector.
enum class Pooling : uint8_t {
  kMean,  // the mean over all tokens
  kLast,  // that of the last token
};

struct LogitBias {
  int32_t token = 0;
  float bias = 0;  // [-100, 100]
};

// Move-only: it owns the state of its constraint.
struct Request {
  std::vector<int32_t> prompt;
  SamplingParams sampling;
  int64_t max_tokens = 16;              // at least 1; 0 for an embedding
  int64_t min_tokens = 0;               // nothing stops the text before
  std::vector<std::string> stop;        // never emitted; the text ends before the first
  std::vector<int32_t> stop_tokens;     // beside the model's own
  EosTokens eos = EosTokens::kStop;     // the model's end-of-text tokens
  std::optional<int32_t> top_logprobs;  // set: logprobs wanted, with that many alternatives
  std::vector<LogitBias> logit_bias;    // those of one token add up

  // What the answer may say; nullptr: anything. The answer ends with kStop when the constraint has
  // ended. It has the last word against min_tokens: where it allows nothing but tokens that end
  // the text, one of them is sampled. Where max_tokens suffice for its shortest text, it is met: a
  // token behind which they would no longer is sampled again among those that bring the end nearer,
  // and the answer ends with kLength.
  std::unique_ptr<TokenConstraint> constraint;

  // Set: a PromptLogprobsEvent is wanted, with that many alternatives. Costs the logits of every
  // prompt token; nothing of such a prompt comes out of the prefix cache.
  std::optional<int32_t> prompt_logprobs;

  // Set: an EmbeddingEvent of the prompt is wanted and no answer; what shapes answers does not
  // matter. Of a prompt whose mean is wanted nothing comes out of the prefix cache.
  std::optional<Pooling> embedding;

  int32_t priority = 0;       // lower goes first, and may preempt higher
  uint64_t tenant = 0;        // requests of equal priority share the engine fairly by tenant
  int32_t tenant_weight = 1;  // in proportion to this; [1, kMaxTenantWeight]
  uint64_t cache_salt = 0;    // cached prefixes are shared among requests of one salt alone

  // Of the engine's clock: one that has not begun to run by then ends with kExpired.
  std::optional<int64_t> deadline_ns;
};

// What a request is held against.
struct RequestLimits {
  int64_t vocabulary = 0;
  int64_t context_tokens = 0;  // of the model
  int64_t cache_tokens = 0;    // positions of the whole key-value cache
};

// Whether the request can be served at all. Errors: kInvalidArgument naming the field, its value
// and what would be right.
Result<Unit> validate(const Request& request, const RequestLimits& limits);

enum class FinishReason : uint8_t {
  kStop,       // a stop string, a stop token or the model's end of text; an embedding is complete
  kLength,     // max_tokens ended the answer, or made it shorter
  kCancelled,  // cancel()
  kError,      // the model failed; FinishedEvent::error says how
  kExpired,    // its deadline passed before it began to run
};

inline constexpr int kFinishReasons = 5;

// "stop", "length", "cancelled", "error", "expired".
std::string_view finish_reason_name(FinishReason reason);

// Tokens that count: each prompt token once however often it was computed, and every token that was
// sampled, the one that ended the text included.
struct Usage {
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  int64_t cached_tokens = 0;  // prompt tokens that were never computed for this request
};

// Times of the engine's clock; 0 for what did not happen.
struct Timing {
  int64_t submitted_ns = 0;
  int64_t scheduled_ns = 0;  // first time in a batch
  int64_t first_token_ns = 0;
  int64_t finished_ns = 0;
};

struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0;
};

// Natural logarithms of the model's own probabilities, before penalties and temperature.
struct Logprobs {
  float chosen = 0;
  std::vector<TokenLogprob> top;  // the likeliest, best first
};

// One sampled token. `text` is what it makes certain: empty while a code point is incomplete or a
// stop string may have begun; the last token's includes all that was held back.
struct TokenEvent {
  RequestId request = 0;
  int32_t token = 0;
  std::string text = {};
  std::optional<Logprobs> logprobs = {};
};

// Before the first token of a request that asked for it: prompt[i + 1] after prompt[0..i].
struct PromptLogprobsEvent {
  RequestId request = 0;
  std::vector<Logprobs> logprobs;  // one fewer than the prompt has tokens
};

// Before the end of a request for an embedding.
struct EmbeddingEvent {
  RequestId request = 0;
  std::vector<float> embedding;  // [hidden]: the pooled hidden states behind the final norm
};

// The last event of every request that was accepted. Text still held back when a request is
// cancelled or fails is dropped.
struct FinishedEvent {
  RequestId request = 0;
  FinishReason reason = FinishReason::kStop;
  Usage usage = {};
  Timing timing = {};
  std::string stop = {};   // the stop string that ended the text, if one did
  std::string error = {};  // kError: one sentence
};

using Event = std::variant<TokenEvent, FinishedEvent, PromptLogprobsEvent, EmbeddingEvent>;

// Called on the owner thread during Engine::step; may submit and cancel, never step.
using EventSink = FunctionRef<void(const Event&)>;

}  // namespace quern
