// One answer while the engine makes it: events in, what the client is told out. Streams write the
// pieces as they come and bodies what has gathered, so that both say the same.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/request.h"
#include "serve/api_error.h"
#include "serve/served_model.h"

namespace quern {

enum class PieceKind : uint8_t {
  kContent,
  kReasoning,
  kCallName,       // begins a tool call; text is its whole name
  kCallArguments,  // goes on with the arguments of the last call
};

struct AnswerPiece {
  PieceKind kind = PieceKind::kContent;
  std::string text;
  size_t call = 0;  // which of Answer::calls(); readers leave it 0
  std::string id;   // of kCallName: as the model gave it, else empty

  friend bool operator==(const AnswerPiece&, const AnswerPiece&) = default;
};

// Tells apart what a model's text is made of. One for each answer.
class AnswerReader {
 public:
  AnswerReader() = default;
  AnswerReader(const AnswerReader&) = delete;
  AnswerReader& operator=(const AnswerReader&) = delete;
  virtual ~AnswerReader() = default;

  // Appends what `text`, which follows all that was read before, makes certain.
  virtual void read(std::string_view text, std::vector<AnswerPiece>& pieces) = 0;

  // The text has ended: appends what was held back.
  virtual void finish(std::vector<AnswerPiece>& pieces) = 0;

  // Whether the text is within reasoning.
  virtual bool reasoning() const = 0;

  // What a special token is to be read as, which the engine leaves out of the text; mostly "".
  virtual std::string_view marker(int32_t token) const = 0;
};

// Pieces of one kind in a row, a tool call among them.
struct AnswerPart {
  PieceKind kind = PieceKind::kContent;  // kCallName: a whole call
  std::string text;                      // empty for a call
  size_t call = 0;                       // which of Answer::calls()
};

struct AnswerCall {
  std::string id;
  std::string name;
  std::string arguments;  // JSON, if the model wrote any
};

// A sampled token as the answer shows it.
struct AnswerToken {
  int32_t token = 0;
  std::optional<Logprobs> logprobs;
  PieceKind kind = PieceKind::kContent;  // what it belongs to: content or reasoning
};

// What one event added.
struct AnswerStep {
  std::vector<AnswerPiece> pieces;
  const AnswerToken* token = nullptr;  // nullptr: the answer ended
};

struct AnswerSetup {
  std::unique_ptr<AnswerReader> reader;  // nullptr: all is content
  std::string call_id_prefix;            // ids of tool calls are this and a number
  std::vector<int32_t> prompt;
  std::vector<int32_t> stop_tokens;  // those of the request
  bool include_stop = false;
  int64_t max_calls = INT64_MAX;  // later ones are dropped
};

class Answer {
 public:
  explicit Answer(AnswerSetup setup);

  AnswerStep add(const TokenEvent& event);
  AnswerStep add(const FinishedEvent& event);

  void set_prompt_logprobs(std::vector<Logprobs> logprobs) {
    prompt_logprobs_ = std::move(logprobs);
  }

  const std::string& content() const { return content_; }

  const std::string& reasoning() const { return reasoning_; }

  const std::vector<AnswerCall>& calls() const { return calls_; }

  // Content, reasoning and calls in their order.
  const std::vector<AnswerPart>& parts() const { return parts_; }

  const std::vector<AnswerToken>& tokens() const { return tokens_; }

  const std::vector<int32_t>& prompt() const { return setup_.prompt; }

  const std::vector<Logprobs>& prompt_logprobs() const { return prompt_logprobs_; }

  // So far; final when finished().
  const Usage& usage() const { return usage_; }

  int64_t reasoning_tokens() const { return reasoning_tokens_; }

  bool finished() const { return finished_.has_value(); }

  // Of a finished answer.
  FinishReason reason() const { return finished_->reason; }

  // The stop string that ended the text; empty when none did.
  const std::string& stop() const { return finished_->stop; }

  // The stop token of the request that ended the text.
  std::optional<int32_t> stop_token() const;

  // What the client is told when the engine did not finish the answer; nothing when it did.
  std::optional<ApiError> failure() const;

 private:
  std::vector<AnswerPiece> read(std::string_view text);
  void keep(std::vector<AnswerPiece>& pieces);
  bool drop_or_keep(AnswerPiece& piece);
  void keep_text(const AnswerPiece& piece, std::string& whole);

  AnswerSetup setup_;
  std::string content_, reasoning_;
  std::vector<AnswerPart> parts_;
  std::vector<AnswerCall> calls_;
  int64_t begun_calls_ = 0;  // dropped ones included
  std::vector<AnswerToken> tokens_;
  std::vector<Logprobs> prompt_logprobs_;
  Usage usage_;
  int64_t reasoning_tokens_ = 0;
  std::optional<FinishedEvent> finished_;
};

// --- What answers look like in JSON -------------------------------------------------------------

// OpenAI's usage of all answers together: a prompt counts once however many answers it has.
struct UsageTotal {
  Usage usage;
  int64_t reasoning_tokens = 0;
};

OrderedJson usage_json(const UsageTotal& total);

// The entry of a chat answer's logprobs.content: token, logprob, bytes, top_logprobs.
OrderedJson token_logprob_json(const Tokenizer& tokenizer, const AnswerToken& token);

// vLLM's prompt_logprobs: null for the first token, then for each an object of token id to
// {logprob, rank, decoded_token}.
OrderedJson prompt_logprobs_json(const Tokenizer& tokenizer, const Answer& answer);

// A logarithm as JSON can write it: -9999 for none at all.
double finite_logprob(float logprob);

// The text that a token stands for; incomplete code points are U+FFFD.
std::string token_text(const Tokenizer& tokenizer, int32_t token);

// "stop", "length" or "tool_calls". Requires a finished answer without failure.
std::string_view openai_finish_reason(const Answer& answer);

// stop_reason of vLLM: the stop string, the stop token or null.
OrderedJson stop_reason_json(const Answer& answer);

}  // namespace quern
