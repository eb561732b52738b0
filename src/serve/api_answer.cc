#include "serve/api_answer.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "base/check.h"
#include "text/unicode.h"

namespace quern {

Answer::Answer(AnswerSetup setup) : setup_(std::move(setup)) {
  usage_.prompt_tokens = static_cast<int64_t>(setup_.prompt.size());
}

std::vector<AnswerPiece> Answer::read(std::string_view text) {
  std::vector<AnswerPiece> pieces;
  if (text.empty()) return pieces;
  if (setup_.reader) {
    setup_.reader->read(text, pieces);
  } else {
    pieces.push_back({PieceKind::kContent, std::string(text), 0, {}});
  }
  return pieces;
}

void Answer::keep_text(const AnswerPiece& piece, std::string& whole) {
  whole += piece.text;
  if (parts_.empty() || parts_.back().kind != piece.kind) parts_.push_back({piece.kind, {}, 0});
  parts_.back().text += piece.text;
}

// False when the piece belongs to a call beyond the limit.
bool Answer::drop_or_keep(AnswerPiece& piece) {
  if (piece.kind == PieceKind::kContent) {
    keep_text(piece, content_);
    return true;
  }
  if (piece.kind == PieceKind::kReasoning) {
    keep_text(piece, reasoning_);
    return true;
  }
  if (piece.kind == PieceKind::kCallName) ++begun_calls_;
  if (begun_calls_ > setup_.max_calls) return false;
  piece.call = static_cast<size_t>(begun_calls_ - 1);
  if (piece.kind == PieceKind::kCallName) {
    std::string id = piece.id.empty() ? fmt::format("{}{}", setup_.call_id_prefix, piece.call)
                                      : std::move(piece.id);
    calls_.push_back({std::move(id), piece.text, {}});
    parts_.push_back({PieceKind::kCallName, {}, piece.call});
  } else {
    QUERN_CHECK(!calls_.empty());
    calls_.back().arguments += piece.text;
  }
  return true;
}

void Answer::keep(std::vector<AnswerPiece>& pieces) {
  std::vector<AnswerPiece> kept;
  for (AnswerPiece& piece : pieces) {
    if (piece.text.empty() && piece.kind != PieceKind::kCallName) continue;
    if (drop_or_keep(piece)) kept.push_back(std::move(piece));
  }
  pieces = std::move(kept);
}

AnswerStep Answer::add(const TokenEvent& event) {
  ++usage_.completion_tokens;
  AnswerStep step;
  const bool reasoned = setup_.reader && setup_.reader->reasoning();
  std::string text = event.text;
  if (setup_.reader) text += setup_.reader->marker(event.token);
  step.pieces = read(text);
  const bool reasons = reasoned || (setup_.reader && setup_.reader->reasoning());
  if (reasons) ++reasoning_tokens_;
  tokens_.push_back(
      {event.token, event.logprobs, reasons ? PieceKind::kReasoning : PieceKind::kContent});
  keep(step.pieces);
  step.token = &tokens_.back();
  return step;
}

AnswerStep Answer::add(const FinishedEvent& event) {
  finished_ = event;
  usage_ = event.usage;
  AnswerStep step;
  if (setup_.include_stop) step.pieces = read(event.stop);
  if (setup_.reader) setup_.reader->finish(step.pieces);
  keep(step.pieces);
  return step;
}

std::optional<int32_t> Answer::stop_token() const {
  if (!finished_->stop.empty() || finished_->reason != FinishReason::kStop || tokens_.empty()) {
    return std::nullopt;
  }
  const int32_t last = tokens_.back().token;
  const auto& stops = setup_.stop_tokens;
  if (std::find(stops.begin(), stops.end(), last) == stops.end()) return std::nullopt;
  return last;
}

std::optional<ApiError> Answer::failure() const {
  switch (finished_->reason) {
    case FinishReason::kStop:
    case FinishReason::kLength:
      return std::nullopt;
    case FinishReason::kError:
      return server_error("the model failed: " + finished_->error);
    case FinishReason::kCancelled:
      return ApiError{.status = 503,
                      .type = "server_error",
                      .code = "cancelled",
                      .message = "the server ended this answer before it was complete",
                      .retry_after_seconds = 1};
    case FinishReason::kExpired:
      return ApiError{.status = 503,
                      .type = "server_error",
                      .code = "overloaded",
                      .message = "the server is full: this call waited as long as it may",
                      .retry_after_seconds = 5};
  }
  return std::nullopt;
}

OrderedJson usage_json(const UsageTotal& total) {
  const Usage& usage = total.usage;
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}},
          {"completion_tokens_details", {{"reasoning_tokens", total.reasoning_tokens}}}};
}

double finite_logprob(float logprob) {
  constexpr double kLeast = -9999;
  return std::isfinite(logprob) ? std::max(static_cast<double>(logprob), kLeast) : kLeast;
}

std::string token_text(const Tokenizer& tokenizer, int32_t token) {
  return replace_invalid_utf8(tokenizer.token_bytes(token));
}

namespace {

OrderedJson logprob_json(const Tokenizer& tokenizer, int32_t token, float logprob) {
  OrderedJson bytes = OrderedJson::array();
  for (const char byte : tokenizer.token_bytes(token)) {
    bytes.push_back(static_cast<unsigned char>(byte));
  }
  return {{"token", token_text(tokenizer, token)},
          {"logprob", finite_logprob(logprob)},
          {"bytes", std::move(bytes)}};
}

}  // namespace

OrderedJson token_logprob_json(const Tokenizer& tokenizer, const AnswerToken& token) {
  OrderedJson json = logprob_json(tokenizer, token.token, token.logprobs->chosen);
  OrderedJson& top = json["top_logprobs"] = OrderedJson::array();
  for (const TokenLogprob& other : token.logprobs->top) {
    top.push_back(logprob_json(tokenizer, other.token, other.logprob));
  }
  return json;
}

OrderedJson prompt_logprobs_json(const Tokenizer& tokenizer, const Answer& answer) {
  OrderedJson all = OrderedJson::array({nullptr});
  for (size_t i = 0; i < answer.prompt_logprobs().size(); ++i) {
    const Logprobs& logprobs = answer.prompt_logprobs()[i];
    OrderedJson entry = OrderedJson::object();
    const auto put = [&](int32_t token, float logprob, OrderedJson rank) {
      entry[std::to_string(token)] = {{"logprob", finite_logprob(logprob)},
                                      {"rank", std::move(rank)},
                                      {"decoded_token", token_text(tokenizer, token)}};
    };
    put(answer.prompt()[i + 1], logprobs.chosen, nullptr);
    for (size_t rank = 0; rank < logprobs.top.size(); ++rank) {
      put(logprobs.top[rank].token, logprobs.top[rank].logprob, rank + 1);
    }
    all.push_back(std::move(entry));
  }
  return all;
}

std::string_view openai_finish_reason(const Answer& answer) {
  if (answer.reason() == FinishReason::kLength) return "length";
  return answer.calls().empty() ? "stop" : "tool_calls";
}

OrderedJson stop_reason_json(const Answer& answer) {
  if (!answer.stop().empty()) return answer.stop();
  if (const auto token = answer.stop_token()) return *token;
  return nullptr;
}

}  // namespace quern
