// Bodies of requests: whatever they hold, a call is refused with a 4xx or opened with requests that
// the engine takes, and an opened call can be answered.
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#include "base/check.h"
#include "engine/request.h"
#include "serve/api_endpoints.h"
#include "serve/api_json.h"
#include "serve/api_router.h"
#include "text/unicode.h"

namespace quern {
namespace {

constexpr const char* kTemplate =
    "{% for m in messages %}[{{ m.role }}]{{ m.reasoning_content }}{{ m.content }}"
    "{% for c in m.tool_calls %}<tool_call>{{ c | tojson }}</tool_call>{% endfor %}{% endfor %}"
    "{{ tools }}{{ documents }}{{ enable_thinking }}";

std::unique_ptr<Tokenizer> letters() {
  OrderedJson vocabulary = OrderedJson::object();
  int id = 0;
  for (char c = '!'; c <= '~'; ++c) vocabulary[std::string(1, c)] = id++;
  const OrderedJson json = {
      {"version", "1.0"},
      {"added_tokens", OrderedJson::array()},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
      {"post_processor", nullptr},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", OrderedJson::array()}}}};
  return std::move(*Tokenizer::from_json(json.dump(), "fuzz"));
}

struct World {
  std::unique_ptr<Tokenizer> tokenizer = letters();
  ChatTemplate chat_template = std::move(*ChatTemplate::parse(kTemplate));
  ServedModel model;
  ServedModels models;

  World() {
    model.id = "m";
    model.tokenizer = tokenizer.get();
    model.chat_template = &chat_template;
    model.chat_template_source = kTemplate;
    model.limits = {.vocabulary = tokenizer->vocabulary_size(),
                    .context_tokens = 1 << 16,
                    .cache_tokens = 1 << 16};
    models.models = {&model};
  }
};

void answer(Exchange& exchange, const World& world) {
  const std::vector<Request> requests = exchange.take_requests();
  std::string out;
  for (size_t i = 0; i < requests.size(); ++i) {
    QUERN_CHECK(validate(requests[i], world.model.limits).has_value());
    TokenEvent token;
    token.token = 1;
    token.text = "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>";
    if (requests[i].top_logprobs) token.logprobs = Logprobs{-1, {{1, -1}}};
    exchange.on_event(i, token, out);
    FinishedEvent finished;
    finished.usage = {static_cast<int64_t>(requests[i].prompt.size()), 1, 0};
    exchange.on_event(i, finished, out);
  }
  exchange.end(out);
  QUERN_CHECK(exchange.status() == 200);
  QUERN_CHECK(!out.empty() && is_valid_utf8(out));
}

// The first byte chooses the endpoint.
void run(const World& world, std::string_view input) {
  if (input.empty()) return;
  const auto& endpoints = api_endpoints();
  const Endpoint& endpoint = endpoints[static_cast<unsigned char>(input[0]) % endpoints.size()];
  const ApiCall call = {
      .body = input.substr(1), .request_id = "req-f", .created_unix_s = 1, .seed = 2};
  OpenedExchange opened = open_exchange(world.models, endpoint.method, endpoint.path, call);
  if (const auto* error = std::get_if<ApiError>(&opened)) {
    QUERN_CHECK((error->status >= 400 && error->status < 500) || error->status == 501);
    QUERN_CHECK(!error->message.empty() && error->message.size() < 4096);
    QUERN_CHECK(is_valid_utf8(api_error_body(endpoint.path, *error, "req-f")));
    return;
  }
  answer(*std::get<std::unique_ptr<Exchange>>(opened), world);
}

}  // namespace
}  // namespace quern

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const quern::World world;
  quern::run(world, {reinterpret_cast<const char*>(data), size});
  return 0;
}
