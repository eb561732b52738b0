// What needs no engine: /v1/models, /tokenize, /detokenize.
#include <utility>

#include "serve/api_endpoints.h"
#include "serve/api_exchange.h"
#include "serve/api_fields.h"
#include "serve/api_json.h"
#include "serve/api_task.h"

namespace quern {
namespace {

OpenedExchange fixed(OrderedJson body) { return std::make_unique<FixedExchange>(std::move(body)); }

OrderedJson model_json(const ServedModel& model) {
  return {{"id", model.id},
          {"object", "model"},
          {"created", model.created_unix_s},
          {"owned_by", model.owned_by},
          {"max_model_len", std::min(model.limits.context_tokens, model.limits.cache_tokens)}};
}

}  // namespace

Schema model_schema() {
  return object_schema(
      {required("id", string_schema()), required("object", constant_schema({"model"})),
       required("created", integer_schema(0, INT64_MAX)), required("owned_by", string_schema()),
       required("max_model_len", integer_schema(0, INT64_MAX))});
}

Schema models_schema() {
  return object_schema({required("object", constant_schema({"list"})),
                        required("data", array_schema(model_schema()))});
}

OpenedExchange open_models(const CheckedCall& call) {
  OrderedJson data = OrderedJson::array();
  for (const ServedModel* model : call.models.models) data.push_back(model_json(*model));
  return fixed({{"object", "list"}, {"data", std::move(data)}});
}

OpenedExchange open_model(const CheckedCall& call) {
  const OrderedJson body = {{"model", call.parameter}};
  return fixed(model_json(*QUERN_TRY(find_model(call.models, body))));
}

// --- /tokenize and /detokenize ------------------------------------------------------------------

Schema tokenize_request_schema() {
  const SchemaMembers common = {model_member(), {"return_token_strs", boolean_schema()}};
  const SchemaMembers text = {required("prompt", string_schema()),
                              {"add_special_tokens", boolean_schema()}};
  return union_schema(
      {object_schema(common + text), object_schema(common + chat_prompt_members())});
}

Schema tokenize_response_schema() {
  return object_schema({required("count", integer_schema(0, INT64_MAX)),
                        required("max_model_len", integer_schema(0, INT64_MAX)),
                        required("tokens", array_schema(integer_schema(0, INT32_MAX))),
                        required("token_strs", nullable_schema(array_schema(string_schema())))});
}

namespace {

ApiResult<std::vector<int32_t>> tokens_of(const CheckedCall& call, const ServedModel& model) {
  if (const OrderedJson* text = find(call.body, "prompt")) {
    const OrderedJson* add = find(call.body, "add_special_tokens");
    const auto& plain = text->get_ref<const std::string&>();
    if (add != nullptr && *add == false)
      return model.tokenizer->encode(plain, SpecialTokens::kParse);
    return model.tokenizer->encode_with_template(plain, SpecialTokens::kParse);
  }
  ChatPrompt prompt = QUERN_TRY(read_chat_prompt(call.body));
  prompt.now_unix_s = call.call.created_unix_s;
  return QUERN_TRY(render_chat(model, prompt)).tokens;
}

}  // namespace

OpenedExchange open_tokenize(const CheckedCall& call) {
  const ServedModel& model = *QUERN_TRY(find_model(call.models, call.body));
  const std::vector<int32_t> tokens = QUERN_TRY(tokens_of(call, model));
  OrderedJson strings = nullptr;
  if (is_true(call.body, "return_token_strs")) {
    strings = OrderedJson::array();
    for (const int32_t token : tokens) strings.push_back(token_text(*model.tokenizer, token));
  }
  return fixed({{"count", tokens.size()},
                {"max_model_len", std::min(model.limits.context_tokens, model.limits.cache_tokens)},
                {"tokens", tokens},
                {"token_strs", std::move(strings)}});
}

Schema detokenize_request_schema() {
  return object_schema(
      {model_member(), required("tokens", array_schema(integer_schema(0, INT32_MAX)))});
}

Schema detokenize_response_schema() { return object_schema({required("prompt", string_schema())}); }

OpenedExchange open_detokenize(const CheckedCall& call) {
  const ServedModel& model = *QUERN_TRY(find_model(call.models, call.body));
  std::vector<int32_t> tokens;
  for (const OrderedJson& token : call.body["tokens"]) {
    tokens.push_back(static_cast<int32_t>(as_integer(token)));
    if (tokens.back() < model.limits.vocabulary) continue;
    return invalid_request("tokens", "tokens holds " + shown(token) +
                                         "; the vocabulary has tokens 0 to " +
                                         std::to_string(model.limits.vocabulary - 1));
  }
  return fixed({{"prompt", model.tokenizer->decode(tokens)}});
}

}  // namespace quern
