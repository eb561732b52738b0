#include "serve/api_fields.h"

#include <utility>

#include "engine/request.h"

namespace quern {
namespace {

constexpr int64_t kMaxInt = INT32_MAX;

Schema stop_schema() {
  return described(
      union_schema({string_schema(1, kMaxStopBytes),
                    array_schema(string_schema(1, kMaxStopBytes), 0, kMaxStopStrings)}),
      "The text ends before the first of these; none is part of it.");
}

Schema logit_bias_schema() {
  Schema schema = map_schema(number_schema(-100, 100), kMaxLogitBiases);
  schema.names = TextRule::kDigits;
  return described(std::move(schema), "Token ids to what is added to their logits.");
}

}  // namespace

SchemaMembers operator+(SchemaMembers a, const SchemaMembers& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

SchemaMember required(std::string name, Schema schema) {
  return {std::move(name), std::move(schema), Presence::kRequired};
}

Schema nullable_schema(Schema schema) { return union_schema({std::move(schema), null_schema()}); }

SchemaMember model_member() {
  return {"model",
          described(string_schema(1), "Id of a served model; may be left out where there is one.")};
}

SchemaMembers sampling_members() {
  return {
      {"temperature", described(number_schema(0, 100), "0 takes the likeliest token.")},
      {"top_p", positive_number_schema(1)},
      {"top_k", described(integer_schema(-1, kMaxInt), "0 and -1 keep all tokens.")},
      {"min_p", number_schema(0, 1)},
      {"presence_penalty", number_schema(-2, 2)},
      {"frequency_penalty", number_schema(-2, 2)},
      {"repetition_penalty", positive_number_schema(10)},
      {"logit_bias", logit_bias_schema()},
      {"seed", described(integer_schema(INT64_MIN, INT64_MAX), "Same seed, same answer.")},
      {"stop", stop_schema()},
      {"stop_token_ids", array_schema(integer_schema(0, kMaxInt), 0, kMaxStopTokens)},
      {"include_stop_str_in_output", boolean_schema()},
      {"ignore_eos", described(boolean_schema(), "Only max_tokens and stops end the text.")},
      {"min_tokens", integer_schema(0, kMaxInt)},
      {"max_tokens", integer_schema(1, kMaxInt)},
      {"skip_special_tokens", described(constant_schema({true}), "Special tokens are left out.")},
  };
}

SchemaMembers answer_members() {
  return {
      {"n", described(integer_schema(1, kMaxAnswers), "Answers to one prompt.")},
      {"stream", described(boolean_schema(), "Answer by server-sent events.")},
      {"stream_options", object_schema({{"include_usage", boolean_schema()},
                                        {"continuous_usage_stats", boolean_schema()},
                                        {"include_obfuscation", constant_schema({false})}})},
      {"prompt_logprobs", described(integer_schema(0, kMaxLogprobs),
                                    "Log probabilities of the prompt with so many alternatives.")},
      {"return_token_ids", boolean_schema()},
  };
}

SchemaMembers placement_members() {
  return {
      {"cache_salt", described(string_schema(1, kMaxIdBytes),
                               "Cached prompts are shared among calls with the same salt alone.")},
      {"priority", described(integer_schema(-1000, 1000), "Lower goes first.")},
      {"truncate_prompt_tokens",
       described(integer_schema(1, kMaxInt), "Keeps the last so many tokens of the prompt.")},
  };
}

SchemaMembers no_op_members() {
  return {
      {"user", described(string_schema(0, kMaxIdBytes), "Not used.")},
      {"safety_identifier", described(string_schema(0, kMaxIdBytes), "Not used.")},
      {"prompt_cache_key",
       described(string_schema(0, kMaxIdBytes), "Not used: every prompt is cached.")},
      {"metadata", described(map_schema(string_schema(), 64), "Not used.")},
      {"store", described(constant_schema({false}), "Nothing is stored.")},
      {"service_tier", constant_schema({"auto", "default"})},
  };
}

SchemaMembers structured_output_members() {
  const Schema schema = described(
      union_schema({open_object_schema(), string_schema(1, kMaxSchemaBytes)}), "A JSON schema.");
  const Schema choice = array_schema(string_schema(1, kMaxSchemaBytes), 1, kMaxChoices);
  const Schema regex = string_schema(1, kMaxSchemaBytes);
  const Schema grammar = string_schema(1, kMaxSchemaBytes);
  return {
      {"structured_outputs", described(object_schema({{"json", schema},
                                                      {"regex", regex},
                                                      {"choice", choice},
                                                      {"grammar", grammar},
                                                      {"json_object", boolean_schema()}}),
                                       "Exactly one of them holds the answer to a form.")},
      {"guided_json", schema},
      {"guided_regex", regex},
      {"guided_choice", choice},
      {"guided_grammar", grammar},
  };
}

Schema usage_schema() {
  const Schema count = integer_schema(0, INT64_MAX);
  return object_schema(
      {required("prompt_tokens", count), required("completion_tokens", count),
       required("total_tokens", count),
       required("prompt_tokens_details", object_schema({required("cached_tokens", count)})),
       required("completion_tokens_details",
                object_schema({required("reasoning_tokens", count)}))});
}

Schema openai_error_schema() {
  return object_schema({required(
      "error",
      object_schema({required("message", string_schema()), required("type", string_schema()),
                     required("param", nullable_schema(string_schema())),
                     required("code", nullable_schema(string_schema()))}))});
}

SchemaMembers choice_extension_members() {
  const Schema ids = array_schema(integer_schema(0, kMaxInt));
  return {
      {"stop_reason", described(union_schema({string_schema(), integer_schema(0, kMaxInt)}),
                                "The stop string or stop token that ended the text.")},
      {"token_ids", ids},
      {"prompt_token_ids", ids},
      {"prompt_logprobs", array_schema(union_schema({null_schema(), open_object_schema()}))},
  };
}

Schema token_logprobs_schema() {
  const SchemaMembers token = {required("token", string_schema()),
                               required("logprob", number_schema(-9999, 0)),
                               required("bytes", array_schema(integer_schema(0, 255)))};
  const Schema top = array_schema(object_schema(token));
  const Schema content =
      array_schema(object_schema(token + SchemaMembers{required("top_logprobs", top)}));
  return nullable_schema(
      object_schema({required("content", nullable_schema(content)), {"refusal", null_schema()}}));
}

}  // namespace quern
