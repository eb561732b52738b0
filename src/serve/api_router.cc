#include "serve/api_router.h"

#include <algorithm>
#include <optional>

#include <fmt/format.h>

#include "serve/api_endpoints.h"
#include "serve/api_exchange.h"
#include "serve/api_json.h"

namespace quern {
namespace {

constexpr std::string_view kId = "{id}";

OpenedExchange open_openapi(const CheckedCall&) {
  return std::make_unique<FixedExchange>(openapi_json());
}

Schema openapi_schema() { return open_object_schema(); }

std::optional<int> hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return std::nullopt;
}

// Bytes written as %XX in a path; a "%" that begins none stays.
std::string percent_decoded(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto high = i + 2 < text.size() && text[i] == '%' ? hex_digit(text[i + 1]) : std::nullopt;
    const auto low = high ? hex_digit(text[i + 2]) : std::nullopt;
    if (low) {
      out += static_cast<char>(*high * 16 + *low);
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

// What the path has in place of {id}, "" for a path without one; nothing when it is another path.
std::optional<std::string> match(std::string_view pattern, std::string_view path) {
  if (!pattern.ends_with(kId))
    return pattern == path ? std::optional<std::string>("") : std::nullopt;
  const std::string_view prefix = pattern.substr(0, pattern.size() - kId.size());
  if (!path.starts_with(prefix) || path.size() == prefix.size()) return std::nullopt;
  return percent_decoded(path.substr(prefix.size()));
}

bool takes(const Endpoint& endpoint, std::string_view method) {
  return endpoint.method == method || (endpoint.method == "GET" && method == "HEAD");
}

ApiError no_route(std::string_view method, std::string_view path) {
  const std::string allowed = allowed_methods(path);
  const std::string shown_path = shown(OrderedJson(std::string(path)));
  ApiError error = invalid_request({}, {}, "unknown_url");
  if (allowed.empty()) {
    error.status = 404;
    error.message =
        fmt::format("there is no {}; GET /openapi.json lists what there is", shown_path);
  } else {
    error.status = 405;
    error.code = "method_not_allowed";
    error.message = fmt::format("{} does not take {}; it takes {}", shown_path,
                                shown(OrderedJson(std::string(method))), allowed);
  }
  return error;
}

// The schemas of the requests, built once.
const std::vector<Schema>& request_schemas() {
  static const std::vector<Schema> schemas = [] {
    std::vector<Schema> built;
    for (const Endpoint& endpoint : api_endpoints()) {
      built.push_back(endpoint.request == nullptr ? any_schema() : endpoint.request());
    }
    return built;
  }();
  return schemas;
}

OpenedExchange open_endpoint(size_t index,
                             const ServedModels& models,
                             const ApiCall& call,
                             std::string parameter) {
  const Endpoint& endpoint = api_endpoints()[index];
  OrderedJson body;
  if (endpoint.request != nullptr) {
    body = QUERN_TRY(parse_body(call.body));
    QUERN_TRY(check(request_schemas()[index], body));
  }
  return endpoint.open({models, body, call, std::move(parameter)});
}

}  // namespace

const std::vector<Endpoint>& api_endpoints() {
  static const std::vector<Endpoint> endpoints = {
      {"POST", "/v1/chat/completions", "createChatCompletion", "Answers a conversation.",
       chat_request_schema, chat_response_schema, open_chat},
      {"POST", "/v1/completions", "createCompletion", "Goes on with a text.",
       completions_request_schema, completions_response_schema, open_completions},
      {"POST", "/v1/responses", "createResponse", "Answers a conversation; nothing is stored.",
       responses_request_schema, responses_response_schema, open_responses},
      {"POST", "/v1/messages", "createMessage", "Answers a conversation, as Anthropic's API does.",
       messages_request_schema, messages_response_schema, open_messages},
      {"POST", "/v1/messages/count_tokens", "countTokens", "The tokens of a conversation.",
       count_tokens_request_schema, count_tokens_response_schema, open_count_tokens},
      {"POST", "/v1/embeddings", "createEmbedding", "Turns texts into vectors.",
       embeddings_request_schema, embeddings_response_schema, open_embeddings},
      {"GET", "/v1/models", "listModels", "The models that are served.", nullptr, models_schema,
       open_models},
      {"GET", "/v1/models/{id}", "retrieveModel", "One of them.", nullptr, model_schema,
       open_model},
      {"POST", "/tokenize", "tokenize", "The token ids of a text or a conversation.",
       tokenize_request_schema, tokenize_response_schema, open_tokenize},
      {"POST", "/detokenize", "detokenize", "The text of token ids.", detokenize_request_schema,
       detokenize_response_schema, open_detokenize},
      {"POST", "/admin/models/load", "loadModel", "Serves another model; needs an admin's key.",
       load_request_schema, load_response_schema, open_load},
      {"POST", "/admin/models/unload", "unloadModel",
       "Serves a model no longer, once its calls have ended; needs an admin's key.",
       unload_request_schema, unload_response_schema, open_unload},
      {"GET", "/openapi.json", "describe", "This document.", nullptr, openapi_schema, open_openapi},
  };
  return endpoints;
}

OpenedExchange open_exchange(const ServedModels& models,
                             std::string_view method,
                             std::string_view path,
                             const ApiCall& call) {
  const std::vector<Endpoint>& endpoints = api_endpoints();
  for (size_t i = 0; i < endpoints.size(); ++i) {
    if (!takes(endpoints[i], method)) continue;
    if (auto parameter = match(endpoints[i].path, path)) {
      return open_endpoint(i, models, call, *std::move(parameter));
    }
  }
  return no_route(method, path);
}

std::string api_error_body(std::string_view path,
                           const ApiError& error,
                           std::string_view request_id) {
  if (path.starts_with("/v1/messages")) return dump(anthropic_error_json(error, request_id));
  return dump(openai_error_json(error));
}

std::string allowed_methods(std::string_view path) {
  std::string methods;
  for (const Endpoint& endpoint : api_endpoints()) {
    if (!match(endpoint.path, path)) continue;
    if (!methods.empty()) methods += ", ";
    methods += endpoint.method == "GET" ? "GET, HEAD" : endpoint.method;
  }
  return methods;
}

}  // namespace quern
