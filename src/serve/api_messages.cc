// POST /v1/messages and /v1/messages/count_tokens, Anthropic's endpoints for conversations.
#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "serve/api_endpoints.h"
#include "serve/api_fields.h"
#include "serve/api_json.h"
#include "serve/api_task.h"

namespace quern {
namespace {

Schema constant(const char* text) { return constant_schema({text}); }

// Every prompt is cached, so that asking for it changes nothing.
SchemaMember cache_control_member() {
  return {"cache_control", described(object_schema({required("type", constant("ephemeral")),
                                                    {"ttl", constant_schema({"5m", "1h"})}}),
                                     "Not used: every prompt is cached.")};
}

Schema text_block_schema() {
  return object_schema({required("type", constant("text")),
                        required("text", string_schema()),
                        {"citations", null_schema()},
                        cache_control_member()});
}

Schema tool_result_schema() {
  return object_schema(
      {required("type", constant("tool_result")),
       required("tool_use_id", string_schema()),
       {"content", union_schema({string_schema(), array_schema(text_block_schema())})},
       {"is_error", boolean_schema()},
       cache_control_member()});
}

Schema tool_use_schema() {
  return object_schema({required("type", constant("tool_use")), required("id", string_schema()),
                        required("name", string_schema(1)), required("input", open_object_schema()),
                        cache_control_member()});
}

Schema thinking_block_schema() {
  return object_schema({required("type", constant("thinking")),
                        required("thinking", string_schema()),
                        {"signature", string_schema()}});
}

Schema message_schema(const char* role, std::vector<Schema> blocks) {
  return object_schema(
      {required("role", constant(role)),
       required("content", union_schema({string_schema(),
                                         array_schema(union_schema(std::move(blocks)), 1)}))});
}

Schema anthropic_tools_schema() {
  return array_schema(object_schema({required("name", name_schema()),
                                     required("input_schema", open_object_schema()),
                                     {"description", string_schema()},
                                     {"type", constant("custom")},
                                     cache_control_member()}),
                      0, kMaxTools);
}

Schema anthropic_tool_choice_schema() {
  const SchemaMember parallel = {"disable_parallel_tool_use", boolean_schema()};
  return union_schema(
      {object_schema({required("type", constant_schema({"auto", "any", "none"})), parallel}),
       object_schema(
           {required("type", constant("tool")), required("name", name_schema()), parallel})});
}

Schema thinking_schema() {
  return union_schema(
      {object_schema({required("type", constant_schema({"disabled", "adaptive"})),
                      {"budget_tokens", refused_schema("a budget of thought is not supported")}}),
       object_schema({required("type", constant("enabled")),
                      {"budget_tokens", refused_schema("a budget of thought is not supported")}})});
}

Schema output_config_schema() {
  const Schema format = object_schema(
      {required("type", constant("json_schema")), required("schema", open_object_schema())});
  return object_schema(
      {{"format", format}, {"effort", constant_schema({"low", "medium", "high", "xhigh", "max"})}});
}

SchemaMembers conversation_members() {
  const Schema user = message_schema("user", {text_block_schema(), tool_result_schema()});
  const Schema assistant = message_schema(
      "assistant", {text_block_schema(), tool_use_schema(), thinking_block_schema()});
  return {model_member(),
          required("messages", array_schema(union_schema({user, assistant}), 1)),
          {"system", union_schema({string_schema(), array_schema(text_block_schema())})},
          {"tools", anthropic_tools_schema()},
          {"tool_choice", anthropic_tool_choice_schema()},
          {"thinking", thinking_schema()},
          {"output_config", output_config_schema()},
          cache_control_member()};
}

}  // namespace

Schema messages_request_schema() {
  return object_schema(
      conversation_members() +
      SchemaMembers{
          required("max_tokens", integer_schema(1, INT32_MAX)),
          {"stop_sequences", array_schema(string_schema(1, kMaxStopBytes), 0, kMaxStopStrings)},
          {"stream", boolean_schema()},
          {"temperature", number_schema(0, 1)},
          {"top_k", integer_schema(0, INT32_MAX)},
          {"top_p", positive_number_schema(1)},
          {"metadata",
           described(object_schema({{"user_id", string_schema(0, kMaxIdBytes)}}), "Not used.")},
          {"service_tier", constant_schema({"auto", "standard_only"})},
          {"container", refused_schema("this server runs no tools")},
          {"mcp_servers", refused_schema("this server runs no tools")}});
}

Schema count_tokens_request_schema() { return object_schema(conversation_members()); }

Schema count_tokens_response_schema() {
  return object_schema({required("input_tokens", integer_schema(0, INT64_MAX))});
}

Schema messages_response_schema() {
  const Schema count = integer_schema(0, INT64_MAX);
  const Schema block =
      union_schema({text_block_schema(), tool_use_schema(), thinking_block_schema()});
  return object_schema(
      {required("id", string_schema()), required("type", constant("message")),
       required("role", constant("assistant")), required("model", string_schema()),
       required("content", array_schema(block)),
       required("stop_reason",
                constant_schema({"end_turn", "max_tokens", "stop_sequence", "tool_use"})),
       required("stop_sequence", nullable_schema(string_schema())),
       required("usage", object_schema({required("input_tokens", count),
                                        required("cache_creation_input_tokens", count),
                                        required("cache_read_input_tokens", count),
                                        required("output_tokens", count)}))});
}

// https://docs.anthropic.com/en/api/errors names a type for each status.
OrderedJson anthropic_error_json(const ApiError& error, std::string_view request_id) {
  const auto type = [&]() -> const char* {
    switch (error.status) {
      case 401:
        return "authentication_error";
      case 403:
        return "permission_error";
      case 404:
        return "not_found_error";
      case 413:
        return "request_too_large";
      case 429:
        return "rate_limit_error";
      case 503:
        return "overloaded_error";
      default:
        return error.status >= 500 ? "api_error" : "invalid_request_error";
    }
  };
  return {{"type", "error"},
          {"error", {{"type", type()}, {"message", error.message}}},
          {"request_id", std::string(request_id)}};
}

Schema anthropic_error_schema() {
  return object_schema({required("type", constant("error")),
                        required("error", object_schema({required("type", string_schema()),
                                                         required("message", string_schema())})),
                        required("request_id", string_schema())});
}

namespace {

// --- Reading ------------------------------------------------------------------------------------

// A user's blocks: results of tools are messages of their own, text between them stays in order.
void add_user_message(const OrderedJson& content, OrderedJson& messages) {
  if (content.is_string()) {
    messages.push_back({{"role", "user"}, {"content", content}});
    return;
  }
  OrderedJson texts = OrderedJson::array();
  const auto flush = [&] {
    if (!texts.empty()) messages.push_back({{"role", "user"}, {"content", content_text(texts)}});
    texts = OrderedJson::array();
  };
  for (const OrderedJson& block : content) {
    if (block["type"] == "text") {
      texts.push_back(block);
      continue;
    }
    flush();
    const OrderedJson* result = find(block, "content");
    std::string text = result == nullptr ? "" : content_text(*result);
    if (is_true(block, "is_error")) text.insert(0, "Error: ");
    messages.push_back(
        {{"role", "tool"}, {"content", std::move(text)}, {"tool_call_id", block["tool_use_id"]}});
  }
  flush();
}

void add_assistant_message(const OrderedJson& content, OrderedJson& messages) {
  OrderedJson message = {{"role", "assistant"}, {"content", ""}};
  OrderedJson texts = OrderedJson::array();
  if (content.is_string()) {
    message["content"] = content;
  } else {
    for (const OrderedJson& block : content) {
      if (block["type"] == "text") {
        texts.push_back(block);
      } else if (block["type"] == "thinking") {
        message["reasoning_content"] = block["thinking"];
      } else {
        message["tool_calls"].push_back(
            {{"id", block["id"]},
             {"type", "function"},
             {"function", {{"name", block["name"]}, {"arguments", block["input"]}}}});
      }
    }
    message["content"] = content_text(texts);
  }
  messages.push_back(std::move(message));
}

ApiResult<OrderedJson> read_anthropic_tools(const OrderedJson& body) {
  const OrderedJson* tools = find(body, "tools");
  if (tools == nullptr) return OrderedJson(nullptr);
  OrderedJson read = OrderedJson::array();
  for (const OrderedJson& tool : *tools) {
    OrderedJson function = {{"name", tool["name"]}};
    if (const OrderedJson* text = find(tool, "description")) function["description"] = *text;
    function["parameters"] = tool["input_schema"];
    read.push_back({{"type", "function"}, {"function", std::move(function)}});
  }
  return read_tools(&read);
}

ApiResult<Unit> read_thinking(const OrderedJson& body, ChatTask& task) {
  const OrderedJson* thinking = find(body, "thinking");
  if (thinking == nullptr) return Unit{};
  const bool off = (*thinking)["type"] == "disabled";
  const bool known = template_mentions(*task.model, "enable_thinking");
  if (off && !known) return Unit{};
  if (known) {
    task.prompt.variables["enable_thinking"] = !off;
    return Unit{};
  }
  return invalid_request("thinking", "this model does not let its thinking be set");
}

void read_anthropic_tool_choice(const OrderedJson& body, ChatTask& task) {
  const OrderedJson* choice = find(body, "tool_choice");
  if (choice == nullptr) return;
  const std::string type = (*choice)["type"].get<std::string>();
  if (type == "any") task.tool_choice = ToolChoice::kRequired;
  if (type == "none") task.tool_choice = ToolChoice::kNone;
  if (type == "tool") {
    task.tool_choice = ToolChoice::kNamed;
    task.tool = (*choice)["name"].get<std::string>();
  }
  task.parallel_calls = !is_true(*choice, "disable_parallel_tool_use");
}

ApiResult<Unit> read_output_config(const OrderedJson& body, ChatTask& task) {
  const OrderedJson* config = find(body, "output_config");
  if (config == nullptr) return Unit{};
  if (const OrderedJson* format = find(*config, "format")) {
    task.form = read_response_format(*format, "output_config.format");
  }
  const OrderedJson* effort = find(*config, "effort");
  if (effort == nullptr) return Unit{};
  return set_reasoning_effort(*task.model, effort->get<std::string>(), "output_config.effort",
                              task.prompt.variables);
}

// What the prompt depends on; also of count_tokens.
ApiResult<ChatTask> read_conversation(const CheckedCall& call) {
  const OrderedJson& body = call.body;
  ChatTask task;
  task.model = QUERN_TRY(find_model(call.models, body));
  OrderedJson& messages = task.prompt.messages;
  const OrderedJson* system = find(body, "system");
  if (std::string text = system == nullptr ? "" : content_text(*system); !text.empty()) {
    messages.push_back({{"role", "system"}, {"content", std::move(text)}});
  }
  for (const OrderedJson& message : body["messages"]) {
    if (message["role"] == "user") {
      add_user_message(message["content"], messages);
    } else {
      add_assistant_message(message["content"], messages);
    }
  }
  // A last message of the assistant is the beginning of the answer.
  if (messages.back()["role"] == "assistant") task.prompt.end = PromptEnd::kContinue;
  task.prompt.tools = QUERN_TRY(read_anthropic_tools(body));
  read_anthropic_tool_choice(body, task);
  QUERN_TRY(read_thinking(body, task));
  QUERN_TRY(read_output_config(body, task));
  task.prompt.now_unix_s = call.call.created_unix_s;
  return task;
}

ApiResult<ChatTask> read_task(const CheckedCall& call) {
  const OrderedJson& body = call.body;
  ChatTask task = QUERN_TRY(read_conversation(call));
  task.sampling = OrderedJson::object();
  for (const char* key : {"temperature", "top_k", "top_p"}) {
    if (const OrderedJson* value = find(body, key)) task.sampling[key] = *value;
  }
  if (const OrderedJson* stops = find(body, "stop_sequences")) task.sampling["stop"] = *stops;
  task.options.stream = is_true(body, "stream");
  task.lengths.max_tokens = as_integer(body["max_tokens"]);
  task.lengths.prompt_field = "messages";
  task.id = fmt::format("msg_{}", id_suffix(call.call.request_id));
  task.call_id_prefix = fmt::format("toolu_{}_", id_suffix(call.call.request_id));
  return task;
}

// --- Answers ------------------------------------------------------------------------------------

class MessagesExchange final : public AnswersExchange {
 public:
  MessagesExchange(PreparedAnswers prepared, std::string_view request_id)
      : AnswersExchange(std::move(prepared)), request_id_(request_id) {}

 protected:
  void write_step(size_t index, const AnswerStep& step, std::string& out) override;
  void write_stream_end(std::string&) override {}
  OrderedJson body() const override;

  std::string stream_error(const ApiError& error) const override {
    std::string out;
    append_event("error", error_body(error), out);
    return out;
  }

  OrderedJson error_body(const ApiError& error) const override {
    return anthropic_error_json(error, request_id_);
  }

 private:
  OrderedJson message_json() const;
  OrderedJson usage() const;
  void write_start(std::string& out);
  void write_piece(const AnswerPiece& piece, std::string& out);
  void open_block(const AnswerPiece& piece, std::string& out);
  void close_block(std::string& out);
  void write_finish(std::string& out);

  std::string request_id_;
  bool started_ = false;
  std::optional<PieceKind> open_;  // the kind of the block that is open
  size_t blocks_ = 0;              // opened so far
};

// Events are named like their type.
void append_typed(const OrderedJson& event, std::string& out) {
  append_event(event["type"].get_ref<const std::string&>(), event, out);
}

// The arguments as an object; what is none is given as its text.
OrderedJson input_json(const std::string& arguments) {
  if (ApiResult<OrderedJson> parsed = parse_body(arguments)) return std::move(*parsed);
  if (arguments.empty()) return OrderedJson::object();
  return {{"arguments", arguments}};
}

const char* stop_reason(const Answer& answer) {
  if (answer.reason() == FinishReason::kLength) return "max_tokens";
  if (!answer.calls().empty()) return "tool_use";
  return answer.stop().empty() ? "end_turn" : "stop_sequence";
}

OrderedJson stop_sequence(const Answer& answer) {
  return answer.stop().empty() ? OrderedJson(nullptr) : OrderedJson(answer.stop());
}

OrderedJson MessagesExchange::usage() const {
  const Usage& usage = answer(0).usage();
  return {{"input_tokens", usage.prompt_tokens - usage.cached_tokens},
          {"cache_creation_input_tokens", 0},
          {"cache_read_input_tokens", usage.cached_tokens},
          {"output_tokens", usage.completion_tokens}};
}

OrderedJson MessagesExchange::message_json() const {
  return {{"id", prepared().id},
          {"type", "message"},
          {"role", "assistant"},
          {"model", model()->id},
          {"content", OrderedJson::array()},
          {"stop_reason", nullptr},
          {"stop_sequence", nullptr},
          {"usage", usage()}};
}

OrderedJson MessagesExchange::body() const {
  OrderedJson message = message_json();
  for (const AnswerPart& part : answer(0).parts()) {
    if (part.kind == PieceKind::kContent) {
      message["content"].push_back({{"type", "text"}, {"text", part.text}});
    } else if (part.kind == PieceKind::kReasoning) {
      message["content"].push_back(
          {{"type", "thinking"}, {"thinking", part.text}, {"signature", ""}});
    } else {
      const AnswerCall& call = answer(0).calls()[part.call];
      message["content"].push_back({{"type", "tool_use"},
                                    {"id", call.id},
                                    {"name", call.name},
                                    {"input", input_json(call.arguments)}});
    }
  }
  message["stop_reason"] = stop_reason(answer(0));
  message["stop_sequence"] = stop_sequence(answer(0));
  return message;
}

void MessagesExchange::write_start(std::string& out) {
  started_ = true;
  OrderedJson message = message_json();
  message["usage"]["output_tokens"] = 0;
  append_typed({{"type", "message_start"}, {"message", std::move(message)}}, out);
}

void MessagesExchange::open_block(const AnswerPiece& piece, std::string& out) {
  OrderedJson block = {{"type", "text"}, {"text", ""}};
  if (piece.kind == PieceKind::kReasoning) {
    block = {{"type", "thinking"}, {"thinking", ""}, {"signature", ""}};
  } else if (piece.kind == PieceKind::kCallName) {
    block = {{"type", "tool_use"},
             {"id", answer(0).calls()[piece.call].id},
             {"name", piece.text},
             {"input", OrderedJson::object()}};
  }
  append_typed(
      {{"type", "content_block_start"}, {"index", blocks_}, {"content_block", std::move(block)}},
      out);
  open_ = piece.kind;
  ++blocks_;
}

void MessagesExchange::close_block(std::string& out) {
  if (!open_) return;
  append_typed({{"type", "content_block_stop"}, {"index", blocks_ - 1}}, out);
  open_.reset();
}

void MessagesExchange::write_piece(const AnswerPiece& piece, std::string& out) {
  const bool goes_on = piece.kind == PieceKind::kCallArguments ||
                       (open_ == piece.kind && piece.kind != PieceKind::kCallName);
  if (!goes_on) {
    close_block(out);
    open_block(piece, out);
  }
  OrderedJson delta;
  if (piece.kind == PieceKind::kCallName) return;
  if (piece.kind == PieceKind::kContent) delta = {{"type", "text_delta"}, {"text", piece.text}};
  if (piece.kind == PieceKind::kReasoning) {
    delta = {{"type", "thinking_delta"}, {"thinking", piece.text}};
  }
  if (piece.kind == PieceKind::kCallArguments) {
    delta = {{"type", "input_json_delta"}, {"partial_json", piece.text}};
  }
  append_typed({{"type", "content_block_delta"}, {"index", blocks_ - 1}, {"delta", delta}}, out);
}

void MessagesExchange::write_finish(std::string& out) {
  close_block(out);
  append_typed(
      {{"type", "message_delta"},
       {"delta",
        {{"stop_reason", stop_reason(answer(0))}, {"stop_sequence", stop_sequence(answer(0))}}},
       {"usage", usage()}},
      out);
  append_typed({{"type", "message_stop"}}, out);
}

void MessagesExchange::write_step(size_t, const AnswerStep& step, std::string& out) {
  if (!started_) write_start(out);
  for (const AnswerPiece& piece : step.pieces) write_piece(piece, out);
  if (step.token == nullptr) write_finish(out);
}

}  // namespace

OpenedExchange open_messages(const CheckedCall& call) {
  ChatTask task = QUERN_TRY(read_task(call));
  PreparedAnswers prepared = QUERN_TRY(prepare_chat(std::move(task), call.call));
  return std::make_unique<MessagesExchange>(std::move(prepared), call.call.request_id);
}

OpenedExchange open_count_tokens(const CheckedCall& call) {
  const ChatTask task = QUERN_TRY(read_conversation(call));
  const RenderedPrompt rendered = QUERN_TRY(render_chat(*task.model, task.prompt));
  return std::make_unique<FixedExchange>(OrderedJson{{"input_tokens", rendered.tokens.size()}});
}

}  // namespace quern
