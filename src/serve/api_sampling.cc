#include "serve/api_sampling.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include <fmt/format.h>
#include <openssl/sha.h>

#include "serve/api_json.h"

namespace quern {
namespace {

template <typename T>
T recommended(const std::optional<T>& recommendation, T otherwise) {
  return recommendation.value_or(otherwise);
}

SamplingParams read_sampling(const OrderedJson& body, const GenerationDefaults& defaults) {
  const auto number = [&](const char* key, float fallback) {
    return static_cast<float>(number_or(body, key, static_cast<double>(fallback)));
  };
  SamplingParams params;
  params.temperature = number("temperature", recommended(defaults.temperature, 1.0f));
  params.top_p = number("top_p", recommended(defaults.top_p, 1.0f));
  params.min_p = number("min_p", recommended(defaults.min_p, 0.0f));
  params.repetition_penalty =
      number("repetition_penalty", recommended(defaults.repetition_penalty, 1.0f));
  params.presence_penalty = number("presence_penalty", 0.0f);
  params.frequency_penalty = number("frequency_penalty", 0.0f);
  const int64_t top_k = integer_or(body, "top_k", recommended(defaults.top_k, 0));
  params.top_k = static_cast<int32_t>(std::max<int64_t>(top_k, 0));  // -1: all, as vLLM has it
  return params;
}

ApiResult<std::vector<LogitBias>> read_logit_bias(const OrderedJson& body, int64_t vocabulary) {
  std::vector<LogitBias> biases;
  const OrderedJson* map = find(body, "logit_bias");
  if (map == nullptr) return biases;
  for (const auto& entry : map->get_ref<const OrderedJson::object_t&>()) {
    const std::string& key = entry.first;
    int64_t token = 0;
    std::from_chars(key.data(), key.data() + key.size(), token);
    if (token >= vocabulary) {
      return invalid_request("logit_bias",
                             fmt::format("logit_bias names token {}; the vocabulary has tokens 0 "
                                         "to {}",
                                         key, vocabulary - 1));
    }
    biases.push_back({static_cast<int32_t>(token), entry.second.get<float>()});
  }
  return biases;
}

std::vector<std::string> read_stops(const OrderedJson& body) {
  const OrderedJson* stop = find(body, "stop");
  if (stop == nullptr) return {};
  if (stop->is_string()) return {stop->get<std::string>()};
  return stop->get<std::vector<std::string>>();
}

// validate() calls fields as the engine does.
std::string api_field(const std::string& message, const std::string& prompt_field) {
  const std::string field = message.substr(0, message.find_first_of(" ["));
  if (field == "stop_tokens") return "stop_token_ids";
  return field == "prompt" ? prompt_field : field;
}

ApiError too_long(int64_t prompt, const LengthOptions& options, int64_t most) {
  std::string message = fmt::format("the context of this model is {} tokens; {} has {} tokens",
                                    most, options.prompt_field, prompt);
  if (options.max_tokens) {
    message += fmt::format(" and max_tokens is {}, {} in all", *options.max_tokens,
                           prompt + *options.max_tokens);
  } else if (prompt == most) {
    message += ", which leaves none for an answer";
  }
  message += fmt::format("; shorten {}{}", options.prompt_field,
                         options.max_tokens ? " or lower max_tokens" : "");
  return invalid_request(options.prompt_field, std::move(message), "context_length_exceeded");
}

}  // namespace

AnswerOptions read_answer_options(const OrderedJson& body) {
  AnswerOptions options;
  options.answers = integer_or(body, "n", 1);
  options.stream = is_true(body, "stream");
  if (const OrderedJson* stream = find(body, "stream_options")) {
    options.include_usage = is_true(*stream, "include_usage");
    options.continuous_usage = is_true(*stream, "continuous_usage_stats");
  }
  options.include_stop = is_true(body, "include_stop_str_in_output");
  options.token_ids = is_true(body, "return_token_ids");
  return options;
}

ApiResult<Request> read_request(const OrderedJson& body, const ServedModel& model, uint64_t seed) {
  Request request;
  request.sampling = read_sampling(body, model.defaults);
  const OrderedJson* own_seed = find(body, "seed");
  request.sampling.seed = own_seed == nullptr ? seed : static_cast<uint64_t>(as_integer(*own_seed));
  request.logit_bias = QUERN_TRY(read_logit_bias(body, model.limits.vocabulary));
  request.stop = read_stops(body);
  if (const OrderedJson* tokens = find(body, "stop_token_ids")) {
    for (const OrderedJson& token : *tokens) {
      request.stop_tokens.push_back(static_cast<int32_t>(as_integer(token)));
    }
  }
  request.min_tokens = integer_or(body, "min_tokens", 0);
  request.eos = is_true(body, "ignore_eos") ? EosTokens::kIgnore : EosTokens::kStop;
  if (const OrderedJson* count = find(body, "prompt_logprobs")) {
    request.prompt_logprobs = static_cast<int32_t>(as_integer(*count));
  }
  request.priority = static_cast<int32_t>(integer_or(body, "priority", 0));
  if (const OrderedJson* salt = find(body, "cache_salt")) {
    request.cache_salt = salt_number(salt->get_ref<const std::string&>());
  }
  return request;
}

ApiResult<Unit> set_prompt(Request& request,
                           std::vector<int32_t> prompt,
                           const LengthOptions& options,
                           const RequestLimits& limits) {
  const auto asked = static_cast<int64_t>(prompt.size());
  if (options.truncate_prompt && asked > *options.truncate_prompt) {
    prompt.erase(prompt.begin(), prompt.end() - *options.truncate_prompt);
  }
  const auto length = static_cast<int64_t>(prompt.size());
  const int64_t most = std::min(limits.context_tokens, limits.cache_tokens);
  const int64_t left = most - length;
  if (left < (request.embedding ? 0 : 1)) return too_long(length, options, most);
  if (options.max_tokens && *options.max_tokens > left) return too_long(length, options, most);
  request.prompt = std::move(prompt);
  if (request.embedding) {
    request.max_tokens = 0;
  } else {
    request.max_tokens =
        options.max_tokens.value_or(std::min(options.fallback.value_or(left), left));
  }
  if (const auto valid = validate(request, limits); !valid) {
    return api_error(valid.error(), api_field(valid.error().message, options.prompt_field));
  }
  return Unit{};
}

uint64_t salt_number(std::string_view salt) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(salt.data()), salt.size(), digest);
  uint64_t number = 0;
  std::memcpy(&number, digest, sizeof(number));
  return number;
}

}  // namespace quern
