// From the fields of a body to what the engine is asked: a field of the request, else the
// publisher's recommendation, else OpenAI's default.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/request.h"
#include "serve/api_error.h"
#include "serve/served_model.h"
#include "text/chat_template.h"

namespace quern {

// How the answers of one call are sent.
struct AnswerOptions {
  int64_t answers = 1;  // to one prompt
  bool stream = false;
  bool include_usage = false;     // a last chunk with the usage
  bool continuous_usage = false;  // usage in every chunk
  bool include_stop = false;      // the stop string is part of the text
  bool token_ids = false;         // beside the text
};

AnswerOptions read_answer_options(const OrderedJson& body);

// A request as the fields of the body have it, but for prompt, max_tokens, constraint and what only
// the server knows (tenant, deadline). `seed` serves a body that brings none. Errors: 400 for a
// logit_bias of a token that does not exist.
ApiResult<Request> read_request(const OrderedJson& body, const ServedModel& model, uint64_t seed);

// What the answer may cost and which field is to blame.
struct LengthOptions {
  std::optional<int64_t> max_tokens = {};  // as asked
  std::optional<int64_t> fallback = {};    // where it is not; nothing: all that the context leaves
  std::optional<int64_t> truncate_prompt = {};  // keeps the last so many tokens
  std::string prompt_field = {};                // "messages"
};

// Gives the request its prompt and max_tokens (none for an embedding) and checks the whole against
// the model's limits. Errors: 400, context_length_exceeded when prompt and answer do not fit, else
// those of validate().
ApiResult<Unit> set_prompt(Request& request,
                           std::vector<int32_t> prompt,
                           const LengthOptions& options,
                           const RequestLimits& limits);

// A number for a salt; equal for equal salts alone, as far as anyone can arrange.
uint64_t salt_number(std::string_view salt);

}  // namespace quern
