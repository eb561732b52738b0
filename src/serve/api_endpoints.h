// The endpoints: what each takes, what it answers and the function that opens a call to it.
#pragma once

#include <string>
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
  std::string parameter;  // what stands for {id} in the path
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

OpenedExchange open_models(const CheckedCall& call);
OpenedExchange open_model(const CheckedCall& call);
Schema model_schema();
Schema models_schema();

OpenedExchange open_load(const CheckedCall& call);
Schema load_request_schema();
Schema load_response_schema();

OpenedExchange open_unload(const CheckedCall& call);
Schema unload_request_schema();
Schema unload_response_schema();

// Fields of chat and tokenize that decide how the conversation becomes a prompt: messages, tools,
// documents, chat_template_kwargs, add_generation_prompt, continue_final_message.
std::vector<SchemaMember> chat_prompt_members();
Schema messages_schema();
Schema tools_schema();

// Those fields of a body that its schema has approved. Errors: 400 for those that contradict each
// other.
ApiResult<ChatPrompt> read_chat_prompt(const OrderedJson& body);

struct Endpoint {
  std::string_view method;
  std::string_view path;  // "{id}" at its end stands for any text
  std::string_view name;  // operationId
  std::string_view summary;
  Schema (*request)() = nullptr;   // nullptr: a call without body
  Schema (*response)() = nullptr;  // of a 200 that is no stream
  OpenFunction open = nullptr;
};

// Every endpoint; the list is the documentation.
const std::vector<Endpoint>& api_endpoints();

// The OpenAPI 3.1 document of the endpoints.
OrderedJson openapi_json();

// The wire forms of an error.
OrderedJson anthropic_error_json(const ApiError& error, std::string_view request_id);
Schema anthropic_error_schema();

}  // namespace quern
