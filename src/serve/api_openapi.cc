// GET /openapi.json: the endpoints and their schemas as an OpenAPI 3.1 document.
#include <string>

#include "serve/api_endpoints.h"
#include "serve/api_fields.h"

namespace quern {
namespace {

constexpr const char* kJsonType = "application/json";

OrderedJson content(OrderedJson schema) { return {{kJsonType, {{"schema", std::move(schema)}}}}; }

bool has_member(const Schema& schema, std::string_view name) {
  for (const SchemaMember& member : schema.members) {
    if (member.name == name) return true;
  }
  return false;
}

OrderedJson responses(const Endpoint& endpoint, const Schema& request) {
  OrderedJson answer = {{"description", "The answer."},
                        {"content", content(to_json(endpoint.response()))}};
  if (has_member(request, "stream")) {
    answer["content"]["text/event-stream"] = {{"schema", {{"type", "string"}}}};
  }
  const bool anthropic = endpoint.path.starts_with("/v1/messages");
  const char* error =
      anthropic ? "#/components/schemas/AnthropicError" : "#/components/schemas/Error";
  return {
      {"200", std::move(answer)},
      {"default", {{"description", "What went wrong."}, {"content", content({{"$ref", error}})}}}};
}

OrderedJson operation(const Endpoint& endpoint) {
  OrderedJson json = {{"operationId", endpoint.name}, {"summary", endpoint.summary}};
  if (endpoint.path.ends_with("{id}")) {
    json["parameters"] = OrderedJson::array({{{"name", "id"},
                                              {"in", "path"},
                                              {"required", true},
                                              {"schema", {{"type", "string"}, {"minLength", 1}}}}});
  }
  Schema request;
  if (endpoint.request != nullptr) {
    request = endpoint.request();
    json["requestBody"] = {{"required", true}, {"content", content(to_json(request))}};
  }
  json["responses"] = responses(endpoint, request);
  return json;
}

std::string lower(std::string_view method) {
  std::string out;
  for (const char c : method) out += static_cast<char>(c - 'A' + 'a');
  return out;
}

}  // namespace

OrderedJson openapi_json() {
  OrderedJson paths = OrderedJson::object();
  for (const Endpoint& endpoint : api_endpoints()) {
    paths[std::string(endpoint.path)][lower(endpoint.method)] = operation(endpoint);
  }
  return {{"openapi", "3.1.0"},
          {"info", {{"title", "Quern"}, {"version", "1"}}},
          {"paths", std::move(paths)},
          {"components",
           {{"schemas",
             {{"Error", to_json(openai_error_schema())},
              {"AnthropicError", to_json(anthropic_error_schema())}}}}}};
}

}  // namespace quern
