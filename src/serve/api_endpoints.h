// The endpoints: what each takes, what it answers and the function that opens a call to it.
#pragma once

#include <string_view>
#include <vector>

#include "serve/api_error.h"
#include "serve/api_prompt.h"
#include "serve/api_schema.h"
#include "serve/exchange.h"
#include "serve/served_model.h"

namespace quern {

// `body` has been checked against the endpoint's request schema.
struct CheckedCall {
  const ServedModels& models;
  const OrderedJson& body;
  const ApiCall& call;
};

using OpenFunction = OpenedExchange (*)(const CheckedCall& call);

OpenedExchange open_chat(const CheckedCall& call);
Schema chat_request_schema();
Schema chat_response_schema();

OpenedExchange open_completions(const CheckedCall& call);
Schema completions_request_schema();
Schema completions_response_schema();

OpenedExchange open_responses(const CheckedCall& call);
Schema responses_request_schema();
Schema responses_response_schema();

OpenedExchange open_messages(const CheckedCall& call);
OpenedExchange open_count_tokens(const CheckedCall& call);
Schema messages_request_schema();
Schema messages_response_schema();
Schema count_tokens_request_schema();
Schema count_tokens_response_schema();

OpenedExchange open_embeddings(const CheckedCall& call);
Schema embeddings_request_schema();
Schema embeddings_response_schema();

OpenedExchange open_tokenize(const CheckedCall& call);
Schema tokenize_request_schema();
Schema tokenize_response_schema();

OpenedExchange open_detokenize(const CheckedCall& call);
Schema detokenize_request_schema();
Schema detokenize_response_schema();

// GET /v1/models and /v1/models/{id}.
OrderedJson models_json(const ServedModels& models);
OrderedJson model_json(const ServedModel& model);
Schema model_schema();
Schema models_schema();

// Fields of chat and tokenize that decide how the conversation becomes a prompt: messages, tools,
// documents, chat_template_kwargs, add_generation_prompt, continue_final_message.
std::vector<SchemaMember> chat_prompt_members();
Schema messages_schema();
Schema tools_schema();

// Those fields of a body that its schema has approved. Errors: 400 for those that contradict each
// other.
ApiResult<ChatPrompt> read_chat_prompt(const OrderedJson& body);

}  // namespace quern
