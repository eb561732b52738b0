#include "load/workload.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

namespace quern {
namespace {

using OrderedJson = nlohmann::ordered_json;

constexpr size_t kDeepNesting = 100'000;

std::string dump(const OrderedJson& json) {
  return json.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

struct HostileBody {
  std::string what, body;
};

HostileBody with(OrderedJson good, const char* key, OrderedJson value) {
  std::string shown = dump(value);
  good[key] = std::move(value);
  return {fmt::format("{} {}", key, shown), dump(good)};
}

// The bodies that hostile requests go through, all of which are the client's fault.
HostileBody hostile_body(uint64_t kind, const OrderedJson& good, LoadEndpoint endpoint) {
  const std::string text = dump(good);
  switch (kind) {
    case 0:
      return {"half a body", text.substr(0, text.size() / 2)};
    case 1:
      return {"an empty body", ""};
    case 2:
      return {"no JSON", "prompt=hello&stream=1"};
    case 3:
      return {"a list", "[]"};
    case 4:
      return {"invalid UTF-8", "{\"model\": \"\xff\xfe\x80\", \"prompt\": \"\xc3\"}"};
    case 5:
      return {"deep nesting", std::string(kDeepNesting, '[')};
    case 6:
      return {"text behind the body", text + "}}"};
    case 7:
      return with(good, endpoint == LoadEndpoint::kChat ? "messages" : "prompt", 5);
    case 8:
      return with(good, "max_tokens", -5);
    default:
      return with(good, "temperature", "hot");
  }
}

constexpr uint64_t kHostileKinds = 10;

bool is_fraction(double value) { return value >= 0 && value <= 1; }

}  // namespace

const char* endpoint_path(LoadEndpoint endpoint) {
  return endpoint == LoadEndpoint::kChat ? "/v1/chat/completions" : "/v1/completions";
}

Result<LoadEndpoint> parse_endpoint(const std::string& text) {
  if (text == "chat" || text == "/v1/chat/completions") return LoadEndpoint::kChat;
  if (text == "completions" || text == "/v1/completions") return LoadEndpoint::kCompletions;
  return Error{
      ErrorCode::kInvalidArgument,
      fmt::format("--endpoint is \"{}\"; expected /v1/chat/completions or /v1/completions", text)};
}

Result<Workload> Workload::make(WorkloadOptions options, WordTokens word_tokens) {
  const auto wrong = [](std::string message) {
    return Error{ErrorCode::kInvalidArgument, std::move(message)};
  };
  if (!is_fraction(options.disconnect_fraction) || !is_fraction(options.hostile_fraction) ||
      options.disconnect_fraction + options.hostile_fraction > 1) {
    return wrong(
        fmt::format("--disconnect-fraction {} and --hostile-fraction {}: expected numbers "
                    "from 0 to 1 that come to at most 1",
                    options.disconnect_fraction, options.hostile_fraction));
  }
  if (!options.extra.is_null() && !options.extra.is_object()) {
    return wrong("--extra-body is no JSON object");
  }
  if (options.prefix_tokens < 0 || options.prefix_tokens > kMaxLengthTokens) {
    return wrong(fmt::format("--prefix-tokens is {}; expected 0 to {}", options.prefix_tokens,
                             kMaxLengthTokens));
  }
  const bool conversations =
      std::any_of(options.prompts.begin(), options.prompts.end(),
                  [](const PromptLine& line) { return !line.messages.is_null(); });
  if (conversations && options.endpoint == LoadEndpoint::kCompletions) {
    return wrong("--prompts has conversations, which /v1/completions does not take");
  }
  if (conversations && options.prefix_tokens > 0) {
    return wrong("--prompts has conversations, to which --prefix-tokens adds nothing");
  }
  return Workload(std::move(options), std::move(word_tokens));
}

Workload::Workload(WorkloadOptions options, WordTokens word_tokens)
    : options_(std::move(options)), word_tokens_(std::move(word_tokens)) {
  if (options_.prefix_tokens == 0) return;
  RandomStream random(options_.seed, RandomPurpose::kPrefix, 0);
  prefix_ = random_text(options_.prefix_tokens, word_tokens_, random) + " ";
}

PlannedRequest Workload::request(uint64_t index) const {
  PlannedRequest planned{.index = index};
  RandomStream lengths(options_.seed, RandomPurpose::kOutputTokens, index);
  planned.output_tokens = options_.output_tokens.draw(lengths);
  if (!options_.prompts.empty()) {
    const PromptLine& line = options_.prompts[index % options_.prompts.size()];
    planned.output_tokens = line.output_tokens.value_or(planned.output_tokens);
  }
  const OrderedJson good = good_body(index, planned.output_tokens);
  RandomStream random(options_.seed, RandomPurpose::kBehaviour, index);
  const double choice = random.uniform();
  if (choice < options_.hostile_fraction) {
    HostileBody hostile = hostile_body(random.below(kHostileKinds), good, options_.endpoint);
    planned.behaviour = Behaviour::kHostile;
    planned.what = std::move(hostile.what);
    planned.body = std::move(hostile.body);
    return planned;
  }
  if (choice < options_.hostile_fraction + options_.disconnect_fraction) {
    planned.behaviour = Behaviour::kDisconnect;
    planned.disconnect_after =
        static_cast<int64_t>(random.below(static_cast<uint64_t>(planned.output_tokens)));
  }
  planned.body = dump(good);
  return planned;
}

OrderedJson Workload::good_body(uint64_t index, int64_t output_tokens) const {
  OrderedJson body = {{"model", options_.model}};
  const PromptLine* line =
      options_.prompts.empty() ? nullptr : &options_.prompts[index % options_.prompts.size()];
  if (line != nullptr && !line->messages.is_null()) {
    body["messages"] = line->messages;
  } else {
    const std::string text = prefix_ + (line != nullptr ? line->text : prompt_text(index));
    if (options_.endpoint == LoadEndpoint::kChat) {
      body["messages"] = OrderedJson::array({{{"role", "user"}, {"content", text}}});
    } else {
      body["prompt"] = text;
    }
  }
  body["max_tokens"] = output_tokens;
  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}};
  if (options_.continuous_usage) body["stream_options"]["continuous_usage_stats"] = true;
  if (options_.ignore_eos) body["ignore_eos"] = true;
  if (options_.temperature) body["temperature"] = *options_.temperature;
  if (!options_.extra.is_null()) body.update(options_.extra);
  return body;
}

std::string Workload::prompt_text(uint64_t index) const {
  RandomStream lengths(options_.seed, RandomPurpose::kInputTokens, index);
  const int64_t wanted = options_.input_tokens.draw(lengths);
  const int64_t beside =
      options_.endpoint == LoadEndpoint::kChat ? word_tokens_.template_tokens : 0;
  RandomStream random(options_.seed, RandomPurpose::kWords, index);
  return random_text(std::max<int64_t>(wanted - beside, 1), word_tokens_, random);
}

}  // namespace quern
