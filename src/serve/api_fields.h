// The fields that several endpoints share, as schemas.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "serve/api_schema.h"

namespace quern {

inline constexpr int64_t kMaxAnswers = 8;  // n
inline constexpr int64_t kMaxTools = 128;
inline constexpr int64_t kMaxSchemaBytes = 64 << 10;  // of one JSON schema, grammar or expression
inline constexpr int64_t kMaxChoices = 1024;          // of structured_outputs.choice
inline constexpr int64_t kMaxPrompts = 64;            // of one call to /v1/completions
inline constexpr int64_t kMaxIdBytes = 1024;          // cache_salt, user and their like

using SchemaMembers = std::vector<SchemaMember>;

// The concatenation.
SchemaMembers operator+(SchemaMembers a, const SchemaMembers& b);

// What chooses tokens and ends the text, as OpenAI and vLLM name it: temperature, top_p, top_k,
// min_p, the penalties, logit_bias, seed, stop, stop_token_ids, max_tokens, min_tokens, ignore_eos.
SchemaMembers sampling_members();

// n, stream, stream_options, prompt_logprobs, return_token_ids and what else shapes the answers.
SchemaMembers answer_members();

// cache_salt, priority, truncate_prompt_tokens.
SchemaMembers placement_members();

// Documented to change nothing: user, metadata, store (false), service_tier, ...
SchemaMembers no_op_members();

// structured_outputs and the guided_* fields that came before it.
SchemaMembers structured_output_members();

SchemaMember model_member();

// Answers.
Schema usage_schema();
Schema openai_error_schema();
SchemaMembers choice_extension_members();  // stop_reason, token_ids, prompt_logprobs
Schema token_logprobs_schema();            // of a chat answer

// A required member.
SchemaMember required(std::string name, Schema schema);

// A value or null, required: what answers always have.
Schema nullable_schema(Schema schema);

}  // namespace quern
