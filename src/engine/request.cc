#include "engine/request.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "base/check.h"
#include "text/unicode.h"

namespace quern {
namespace {

Error invalid(std::string message) {
  return Error{ErrorCode::kInvalidArgument, std::move(message)};
}

// A number must lie in [least, most], or in (least, most] when `open`.
struct Range {
  std::string_view field;
  double least = 0;
  double most = 0;
  std::string_view open_or_closed = "[";
};

Result<Unit> check_range(double value, const Range& range) {
  const bool open = range.open_or_closed == "(";
  const bool above = open ? value > range.least : value >= range.least;
  if (above && value <= range.most) return Unit{};
  return invalid(fmt::format("{} is {}; it must be in {}{}, {}]", range.field, value,
                             range.open_or_closed, range.least, range.most));
}

Result<Unit> check_sampling(const SamplingParams& params) {
  QUERN_TRY(check_range(params.temperature, {"temperature", 0, 100}));
  QUERN_TRY(check_range(params.top_k, {"top_k", 0, 0x7fffffff}));
  QUERN_TRY(check_range(params.top_p, {"top_p", 0, 1, "("}));
  QUERN_TRY(check_range(params.min_p, {"min_p", 0, 1}));
  QUERN_TRY(check_range(params.repetition_penalty, {"repetition_penalty", 0, 10, "("}));
  QUERN_TRY(check_range(params.presence_penalty, {"presence_penalty", -2, 2}));
  return check_range(params.frequency_penalty, {"frequency_penalty", -2, 2});
}

Result<Unit> check_tokens(std::string_view field,
                          const std::vector<int32_t>& tokens,
                          int64_t vocabulary) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] >= 0 && tokens[i] < vocabulary) continue;
    return invalid(fmt::format("{}[{}] is token {}; the vocabulary has tokens 0 to {}", field, i,
                               tokens[i], vocabulary - 1));
  }
  return Unit{};
}

Result<Unit> check_lengths(const Request& request, const RequestLimits& limits) {
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  if (prompt == 0) return invalid("prompt is empty; it must have at least one token");
  if (request.embedding) {
    if (request.max_tokens != 0) {
      return invalid(
          fmt::format("max_tokens is {}; it must be 0 for an embedding", request.max_tokens));
    }
  } else if (request.max_tokens < 1) {
    return invalid(fmt::format("max_tokens is {}; it must be at least 1", request.max_tokens));
  }
  if (request.min_tokens < 0 || request.min_tokens > request.max_tokens) {
    return invalid(fmt::format("min_tokens is {}; it must be in [0, max_tokens = {}]",
                               request.min_tokens, request.max_tokens));
  }
  const int64_t most = std::min(limits.context_tokens, limits.cache_tokens);
  if (prompt <= most && request.max_tokens <= most - prompt) return Unit{};
  const bool by_context = limits.context_tokens <= limits.cache_tokens;
  return invalid(fmt::format("prompt of {} tokens and max_tokens {} exceed {} of {} tokens", prompt,
                             request.max_tokens,
                             by_context ? "the model's context" : "the key-value cache", most));
}

Result<Unit> check_stops(const Request& request) {
  if (request.stop.size() > kMaxStopStrings) {
    return invalid(fmt::format("stop has {} strings; at most {} are allowed", request.stop.size(),
                               kMaxStopStrings));
  }
  for (size_t i = 0; i < request.stop.size(); ++i) {
    const std::string& stop = request.stop[i];
    if (stop.empty() || stop.size() > kMaxStopBytes) {
      return invalid(fmt::format("stop[{}] has {} bytes; it must have 1 to {}", i, stop.size(),
                                 kMaxStopBytes));
    }
    if (!is_valid_utf8(stop)) return invalid(fmt::format("stop[{}] is not valid UTF-8", i));
  }
  if (request.stop_tokens.size() > kMaxStopTokens) {
    return invalid(fmt::format("stop_tokens has {} tokens; at most {} are allowed",
                               request.stop_tokens.size(), kMaxStopTokens));
  }
  return Unit{};
}

Result<Unit> check_logit_bias(const Request& request, int64_t vocabulary) {
  if (request.logit_bias.size() > kMaxLogitBiases) {
    return invalid(fmt::format("logit_bias has {} tokens; at most {} are allowed",
                               request.logit_bias.size(), kMaxLogitBiases));
  }
  for (const LogitBias& entry : request.logit_bias) {
    if (entry.token < 0 || entry.token >= vocabulary) {
      return invalid(fmt::format("logit_bias names token {}; the vocabulary has tokens 0 to {}",
                                 entry.token, vocabulary - 1));
    }
    const std::string field = fmt::format("logit_bias of token {}", entry.token);
    QUERN_TRY(check_range(entry.bias, {field, -100, 100}));
  }
  return Unit{};
}

Result<Unit> check_logprobs(std::string_view field, const std::optional<int32_t>& top) {
  if (!top) return Unit{};
  return check_range(*top, {field, 0, kMaxLogprobs});
}

}  // namespace

Result<Unit> validate(const Request& request, const RequestLimits& limits) {
  QUERN_TRY(check_lengths(request, limits));
  QUERN_TRY(check_tokens("prompt", request.prompt, limits.vocabulary));
  QUERN_TRY(check_sampling(request.sampling));
  QUERN_TRY(check_stops(request));
  QUERN_TRY(check_tokens("stop_tokens", request.stop_tokens, limits.vocabulary));
  QUERN_TRY(check_logit_bias(request, limits.vocabulary));
  QUERN_TRY(check_logprobs("top_logprobs", request.top_logprobs));
  QUERN_TRY(check_logprobs("prompt_logprobs", request.prompt_logprobs));
  if (request.embedding && request.prompt_logprobs) {
    return invalid("prompt_logprobs are not given for an embedding; leave them out");
  }
  return check_range(request.tenant_weight, {"tenant_weight", 1, kMaxTenantWeight});
}

std::string_view finish_reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kError:
      return "error";
    case FinishReason::kExpired:
      return "expired";
  }
  return "";
}

}  // namespace quern
