// POST /v1/responses: OpenAI's endpoint of typed items, without its store: every call brings the
// whole conversation.
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

SchemaMember status_member() {
  return {"status", constant_schema({"in_progress", "completed", "incomplete"})};
}

Schema text_part_schema(std::vector<OrderedJson> types) {
  return object_schema({required("type", constant_schema(std::move(types))),
                        required("text", string_schema()),
                        {"annotations", array_schema(any_schema())},
                        {"logprobs", array_schema(any_schema())}});
}

Schema input_message_schema() {
  const Schema refusal =
      object_schema({required("type", constant("refusal")), required("refusal", string_schema())});
  const Schema part =
      union_schema({text_part_schema({"input_text", "output_text", "text"}), refusal});
  return object_schema(
      {{"type", constant("message")},
       required("role", constant_schema({"user", "assistant", "system", "developer"})),
       required("content", union_schema({string_schema(), array_schema(part, 1)})),
       {"id", string_schema()},
       status_member()});
}

Schema function_call_schema() {
  return object_schema({required("type", constant("function_call")),
                        required("call_id", string_schema()),
                        required("name", string_schema(1)),
                        required("arguments", string_schema()),
                        {"id", string_schema()},
                        status_member()});
}

Schema function_output_schema() {
  return object_schema(
      {required("type", constant("function_call_output")),
       required("call_id", string_schema()),
       required("output",
                union_schema({string_schema(), array_schema(text_part_schema({"input_text"}), 1)})),
       {"id", string_schema()},
       status_member()});
}

Schema reasoning_item_schema() {
  return object_schema({required("type", constant("reasoning")),
                        {"id", string_schema()},
                        {"summary", array_schema(any_schema())},
                        {"content", array_schema(text_part_schema({"reasoning_text"}))},
                        {"encrypted_content", null_schema()},
                        status_member()});
}

Schema function_tool_schema() {
  return object_schema({required("type", constant("function")),
                        required("name", name_schema()),
                        {"description", string_schema()},
                        {"parameters", open_object_schema()},
                        {"strict", boolean_schema()}});
}

Schema text_format_schema() {
  const Schema schema = object_schema({required("type", constant("json_schema")),
                                       required("name", name_schema()),
                                       required("schema", open_object_schema()),
                                       {"description", string_schema()},
                                       {"strict", boolean_schema()}});
  return union_schema(
      {object_schema({required("type", constant_schema({"text", "json_object"}))}), schema});
}

SchemaMembers responses_only_members() {
  const Schema named =
      object_schema({required("type", constant("function")), required("name", name_schema())});
  const Schema item = union_schema({input_message_schema(), function_call_schema(),
                                    function_output_schema(), reasoning_item_schema()});
  return {
      required("input", union_schema({string_schema(), array_schema(item, 1)})),
      {"instructions", string_schema()},
      {"max_output_tokens", integer_schema(1, INT32_MAX)},
      {"tools", array_schema(function_tool_schema(), 0, kMaxTools)},
      {"tool_choice", union_schema({constant_schema({"none", "auto", "required"}), named})},
      {"parallel_tool_calls", boolean_schema()},
      {"text", object_schema({{"format", text_format_schema()}})},
      {"reasoning", object_schema({{"effort", constant_schema({"none", "minimal", "low", "medium",
                                                               "high", "xhigh", "max"})},
                                   {"summary", refused_schema("reasoning is given whole")}})},
      {"top_logprobs", integer_schema(0, kMaxLogprobs)},
      {"include", array_schema(constant_schema(
                      {"message.output_text.logprobs", "reasoning.encrypted_content"}))},
      {"stream", boolean_schema()},
      {"stream_options", object_schema({{"include_obfuscation", constant_schema({false})}})},
      {"background", constant_schema({false})},
      {"truncation", constant_schema({"disabled"})},
  };
}

SchemaMembers stored_state_members() {
  const char* reason = "this server stores nothing; input brings the whole conversation";
  return {{"previous_response_id", refused_schema(reason)},
          {"conversation", refused_schema(reason)},
          {"prompt", refused_schema(reason)},
          {"max_tool_calls", refused_schema("this server runs no tools")}};
}

// Those that the endpoint has a name of its own for are left out.
SchemaMembers responses_sampling_members() {
  SchemaMembers members = sampling_members();
  std::erase_if(members, [](const SchemaMember& member) { return member.name == "max_tokens"; });
  return members;
}

}  // namespace

Schema responses_request_schema() {
  return object_schema(SchemaMembers{model_member()} + responses_only_members() +
                       stored_state_members() + responses_sampling_members() + placement_members() +
                       no_op_members());
}

Schema responses_response_schema() {
  const Schema count = integer_schema(0, INT64_MAX);
  const Schema usage = object_schema(
      {required("input_tokens", count),
       required("input_tokens_details", object_schema({required("cached_tokens", count)})),
       required("output_tokens", count),
       required("output_tokens_details", object_schema({required("reasoning_tokens", count)})),
       required("total_tokens", count)});
  Schema response = open_object_schema();
  response.members = {
      required("id", string_schema()),
      required("object", constant("response")),
      required("created_at", count),
      required("status", constant_schema({"completed", "incomplete"})),
      required("model", string_schema()),
      required("output", array_schema(union_schema({input_message_schema(), function_call_schema(),
                                                    reasoning_item_schema()}))),
      required("usage", usage)};
  return response;
}

namespace {

// --- Reading ------------------------------------------------------------------------------------

// Calls and reasoning are items beside the message of the assistant that templates put them into.
class ItemReader {
 public:
  explicit ItemReader(OrderedJson& messages) : messages_(messages) {}

  void read(const OrderedJson& item) {
    const std::string type = text_or(item, "type", "message");
    if (type == "function_call") return read_call(item);
    if (type == "reasoning") return read_reasoning(item);
    if (type == "function_call_output") {
      messages_.push_back({{"role", "tool"},
                           {"content", content_text(item["output"])},
                           {"tool_call_id", item["call_id"]}});
      return;
    }
    std::string role = item["role"].get<std::string>();
    if (role == "developer") role = "system";
    OrderedJson message = {{"role", role}, {"content", content_text(item["content"])}};
    if (role == "assistant") take_reasoning(message);
    messages_.push_back(std::move(message));
  }

 private:
  void read_call(const OrderedJson& item) {
    if (messages_.empty() || messages_.back()["role"] != "assistant") {
      OrderedJson message = {{"role", "assistant"}, {"content", ""}};
      take_reasoning(message);
      messages_.push_back(std::move(message));
    }
    messages_.back()["tool_calls"].push_back(template_tool_call(
        item["call_id"], item["name"], item["arguments"].get_ref<const std::string&>()));
  }

  void read_reasoning(const OrderedJson& item) {
    if (const OrderedJson* content = find(item, "content")) reasoning_ += content_text(*content);
  }

  void take_reasoning(OrderedJson& message) {
    if (!reasoning_.empty()) message["reasoning_content"] = std::exchange(reasoning_, {});
  }

  OrderedJson& messages_;
  std::string reasoning_;  // of the next message of the assistant
};

OrderedJson read_messages(const OrderedJson& body) {
  OrderedJson messages = OrderedJson::array();
  if (const std::string text = text_or(body, "instructions", ""); !text.empty()) {
    messages.push_back({{"role", "system"}, {"content", text}});
  }
  if (body["input"].is_string()) {
    messages.push_back({{"role", "user"}, {"content", body["input"]}});
    return messages;
  }
  ItemReader reader(messages);
  for (const OrderedJson& item : body["input"]) reader.read(item);
  return messages;
}

ApiResult<OrderedJson> read_function_tools(const OrderedJson& body) {
  const OrderedJson* tools = find(body, "tools");
  if (tools == nullptr) return OrderedJson(nullptr);
  OrderedJson read = OrderedJson::array();
  for (const OrderedJson& tool : *tools) {
    OrderedJson function = tool;
    function.erase("type");
    read.push_back({{"type", "function"}, {"function", std::move(function)}});
  }
  return read_tools(&read);
}

void read_function_choice(const OrderedJson& body, ChatTask& task) {
  const OrderedJson* choice = find(body, "tool_choice");
  if (choice == nullptr || *choice == "auto") return;
  if (choice->is_object()) {
    task.tool_choice = ToolChoice::kNamed;
    task.tool = (*choice)["name"].get<std::string>();
    return;
  }
  task.tool_choice = *choice == "none" ? ToolChoice::kNone : ToolChoice::kRequired;
}

bool wants_logprobs(const OrderedJson& body) {
  const OrderedJson* include = find(body, "include");
  if (include == nullptr) return false;
  return std::find(include->begin(), include->end(), "message.output_text.logprobs") !=
         include->end();
}

void read_lengths(const OrderedJson& body, LengthOptions& lengths) {
  lengths.prompt_field = "input";
  if (const OrderedJson* most = find(body, "max_output_tokens")) {
    lengths.max_tokens = as_integer(*most);
  }
  if (const OrderedJson* keep = find(body, "truncate_prompt_tokens")) {
    lengths.truncate_prompt = as_integer(*keep);
  }
}

ApiResult<ChatTask> read_task(const CheckedCall& call) {
  const OrderedJson& body = call.body;
  ChatTask task;
  task.model = QUERN_TRY(find_model(call.models, body));
  task.prompt.messages = read_messages(body);
  task.prompt.tools = QUERN_TRY(read_function_tools(body));
  task.sampling = body;
  task.options.stream = is_true(body, "stream");
  task.options.include_stop = is_true(body, "include_stop_str_in_output");
  read_lengths(body, task.lengths);
  const int64_t top = integer_or(body, "top_logprobs", 0);
  if (wants_logprobs(body) || top > 0) task.top_logprobs = static_cast<int32_t>(top);
  if (const OrderedJson* text = find(body, "text"); text != nullptr) {
    const OrderedJson* format = find(*text, "format");
    if (format != nullptr) task.form = read_response_format(*format, "text.format");
  }
  read_function_choice(body, task);
  if (const OrderedJson* parallel = find(body, "parallel_tool_calls")) {
    task.parallel_calls = parallel->get<bool>();
  }
  const OrderedJson* reasoning = find(body, "reasoning");
  const OrderedJson* effort = reasoning == nullptr ? nullptr : find(*reasoning, "effort");
  if (effort != nullptr) {
    QUERN_TRY(set_reasoning_effort(*task.model, effort->get<std::string>(), "reasoning.effort",
                                   task.prompt.variables));
  }
  task.id = fmt::format("resp_{}", id_suffix(call.call.request_id));
  task.call_id_prefix = fmt::format("call_{}_", id_suffix(call.call.request_id));
  return task;
}

// The fields of an answer that repeat the request.
OrderedJson echoed(const OrderedJson& body, const SamplingParams& sampling) {
  const auto member = [&](const char* key, const OrderedJson& fallback) {
    const OrderedJson* value = find(body, key);
    return value == nullptr ? fallback : *value;
  };
  OrderedJson text = member("text", OrderedJson::object());
  if (!text.contains("format")) text["format"] = {{"type", "text"}};
  OrderedJson reasoning = member("reasoning", OrderedJson::object());
  return {
      {"instructions", member("instructions", nullptr)},
      {"max_output_tokens", member("max_output_tokens", nullptr)},
      {"metadata", member("metadata", OrderedJson::object())},
      {"parallel_tool_calls", member("parallel_tool_calls", true)},
      {"previous_response_id", nullptr},
      {"reasoning", {{"effort", reasoning.value("effort", OrderedJson())}, {"summary", nullptr}}},
      {"service_tier", "default"},
      {"store", false},
      {"temperature", static_cast<double>(sampling.temperature)},
      {"text", std::move(text)},
      {"tool_choice", member("tool_choice", "auto")},
      {"tools", member("tools", OrderedJson::array())},
      {"top_logprobs", member("top_logprobs", 0)},
      {"top_p", static_cast<double>(sampling.top_p)},
      {"truncation", "disabled"},
      {"user", member("user", nullptr)}};
}

// --- Answers ------------------------------------------------------------------------------------

class ResponsesExchange final : public AnswersExchange {
 public:
  ResponsesExchange(PreparedAnswers prepared, OrderedJson echo)
      : AnswersExchange(std::move(prepared)), echo_(std::move(echo)) {}

 protected:
  void write_step(size_t index, const AnswerStep& step, std::string& out) override;

  void write_stream_end(std::string&) override {}

  OrderedJson body() const override { return response_json(final_status()); }

  std::string stream_error(const ApiError& error) const override;

 private:
  const char* final_status() const {
    return answer(0).reason() == FinishReason::kLength ? "incomplete" : "completed";
  }

  OrderedJson response_json(const char* status) const;
  OrderedJson item_json(size_t index, const char* status) const;
  OrderedJson part_json(const AnswerPart& part) const;
  OrderedJson logprobs_json() const;
  OrderedJson place(size_t index) const;
  OrderedJson usage() const;
  std::string item_id(size_t index) const;

  void emit(const char* type, const OrderedJson& fields, std::string& out);
  void write_start(std::string& out);
  void open_part(const AnswerPiece& piece, std::string& out);
  void close_part(const char* status, std::string& out);
  void write_piece(const AnswerPiece& piece, std::string& out);
  void write_finish(std::string& out);

  OrderedJson echo_;
  int64_t sequence_ = 0;  // of the next event
  size_t opened_ = 0;     // parts whose item has begun; the last is open while `open_`
  bool open_ = false;
  std::vector<AnswerToken> held_;  // tokens with logprobs that no delta has shown
};

const char* item_prefix(PieceKind kind) {
  if (kind == PieceKind::kContent) return "msg";
  return kind == PieceKind::kReasoning ? "rs" : "fc";
}

std::string ResponsesExchange::item_id(size_t index) const {
  return fmt::format("{}_{}_{}", item_prefix(answer(0).parts()[index].kind),
                     prepared().id.substr(prepared().id.find('_') + 1), index);
}

OrderedJson ResponsesExchange::logprobs_json() const {
  OrderedJson logprobs = OrderedJson::array();
  for (const AnswerToken& token : answer(0).tokens()) {
    if (!token.logprobs || token.kind != PieceKind::kContent) continue;
    logprobs.push_back(token_logprob_json(tokenizer(), token));
  }
  return logprobs;
}

// The content part of a message or of reasoning as it is now.
OrderedJson ResponsesExchange::part_json(const AnswerPart& part) const {
  if (part.kind == PieceKind::kReasoning) return {{"type", "reasoning_text"}, {"text", part.text}};
  return {{"type", "output_text"},
          {"text", part.text},
          {"annotations", OrderedJson::array()},
          {"logprobs", logprobs_json()}};
}

OrderedJson ResponsesExchange::item_json(size_t index, const char* status) const {
  const AnswerPart& part = answer(0).parts()[index];
  if (part.kind == PieceKind::kCallName) {
    const AnswerCall& call = answer(0).calls()[part.call];
    return {{"id", item_id(index)}, {"type", "function_call"}, {"status", status},
            {"call_id", call.id},   {"name", call.name},       {"arguments", call.arguments}};
  }
  const OrderedJson content = OrderedJson::array({part_json(part)});
  if (part.kind == PieceKind::kReasoning) {
    return {{"id", item_id(index)},
            {"type", "reasoning"},
            {"status", status},
            {"summary", OrderedJson::array()},
            {"content", content}};
  }
  return {{"id", item_id(index)},
          {"type", "message"},
          {"status", status},
          {"role", "assistant"},
          {"content", content}};
}

OrderedJson ResponsesExchange::usage() const {
  const UsageTotal total = total_usage();
  return {{"input_tokens", total.usage.prompt_tokens},
          {"input_tokens_details", {{"cached_tokens", total.usage.cached_tokens}}},
          {"output_tokens", total.usage.completion_tokens},
          {"output_tokens_details", {{"reasoning_tokens", total.reasoning_tokens}}},
          {"total_tokens", total.usage.prompt_tokens + total.usage.completion_tokens}};
}

OrderedJson ResponsesExchange::response_json(const char* status) const {
  const bool ended = answer(0).finished();
  const bool cut = std::string_view(status) == "incomplete";
  OrderedJson response = {{"id", prepared().id},
                          {"object", "response"},
                          {"created_at", prepared().created_unix_s},
                          {"status", status},
                          {"background", false},
                          {"error", nullptr},
                          {"incomplete_details", nullptr},
                          {"model", model()->id},
                          {"output", OrderedJson::array()}};
  if (cut) response["incomplete_details"] = {{"reason", "max_output_tokens"}};
  const size_t count = ended ? answer(0).parts().size() : 0;
  for (size_t i = 0; i < count; ++i) {
    response["output"].push_back(item_json(i, i + 1 == count ? status : "completed"));
  }
  response.update(echo_);
  response["usage"] = ended ? usage() : OrderedJson();
  return response;
}

void ResponsesExchange::emit(const char* type, const OrderedJson& fields, std::string& out) {
  OrderedJson event = {{"type", type}, {"sequence_number", sequence_++}};
  event.update(fields);
  append_event(type, event, out);
}

std::string ResponsesExchange::stream_error(const ApiError& error) const {
  OrderedJson response = response_json("failed");
  response["error"] = {{"code", error.code.empty() ? "server_error" : error.code},
                       {"message", error.message}};
  std::string out;
  append_event("response.failed",
               {{"type", "response.failed"},
                {"sequence_number", sequence_},
                {"response", std::move(response)}},
               out);
  return out;
}

void ResponsesExchange::write_start(std::string& out) {
  emit("response.created", {{"response", response_json("in_progress")}}, out);
  emit("response.in_progress", {{"response", response_json("in_progress")}}, out);
}

// Where an event of a part happens.
OrderedJson ResponsesExchange::place(size_t index) const {
  OrderedJson at = {{"item_id", item_id(index)}, {"output_index", index}};
  if (answer(0).parts()[index].kind != PieceKind::kCallName) at["content_index"] = 0;
  return at;
}

OrderedJson joined(OrderedJson a, const OrderedJson& b) {
  a.update(b);
  return a;
}

void ResponsesExchange::open_part(const AnswerPiece& piece, std::string& out) {
  const size_t index = opened_++;
  open_ = true;
  const AnswerPart empty = {piece.kind, {}, 0};
  OrderedJson item = item_json(index, "in_progress");
  if (piece.kind == PieceKind::kCallName) {
    item["arguments"] = "";
  } else {
    item["content"] = OrderedJson::array();
  }
  emit("response.output_item.added", {{"output_index", index}, {"item", std::move(item)}}, out);
  if (piece.kind == PieceKind::kCallName) return;
  OrderedJson part = part_json(empty);
  if (part.contains("logprobs")) part["logprobs"] = OrderedJson::array();
  emit("response.content_part.added", joined(place(index), {{"part", std::move(part)}}), out);
}

void ResponsesExchange::close_part(const char* status, std::string& out) {
  if (!open_) return;
  open_ = false;
  const size_t index = opened_ - 1;
  const AnswerPart& part = answer(0).parts()[index];
  if (part.kind == PieceKind::kCallName) {
    const AnswerCall& call = answer(0).calls()[part.call];
    emit("response.function_call_arguments.done",
         joined(place(index), {{"name", call.name}, {"arguments", call.arguments}}), out);
  } else if (part.kind == PieceKind::kReasoning) {
    emit("response.reasoning_text.done", joined(place(index), {{"text", part.text}}), out);
  } else {
    emit("response.output_text.done",
         joined(place(index), {{"text", part.text}, {"logprobs", logprobs_json()}}), out);
  }
  if (part.kind != PieceKind::kCallName) {
    emit("response.content_part.done", joined(place(index), {{"part", part_json(part)}}), out);
  }
  emit("response.output_item.done", {{"output_index", index}, {"item", item_json(index, status)}},
       out);
}

void ResponsesExchange::write_piece(const AnswerPiece& piece, std::string& out) {
  const bool same = open_ && answer(0).parts()[opened_ - 1].kind == piece.kind;
  const bool goes_on =
      piece.kind == PieceKind::kCallArguments || (same && piece.kind != PieceKind::kCallName);
  if (!goes_on) {
    close_part("completed", out);
    open_part(piece, out);
  }
  const size_t index = opened_ - 1;
  OrderedJson delta = joined(place(index), {{"delta", piece.text}});
  switch (piece.kind) {
    case PieceKind::kCallName:
      break;
    case PieceKind::kCallArguments:
      emit("response.function_call_arguments.delta", delta, out);
      break;
    case PieceKind::kReasoning:
      emit("response.reasoning_text.delta", delta, out);
      break;
    case PieceKind::kContent:
      OrderedJson& logprobs = delta["logprobs"] = OrderedJson::array();
      for (const AnswerToken& token : held_) {
        logprobs.push_back(token_logprob_json(tokenizer(), token));
      }
      held_.clear();
      emit("response.output_text.delta", delta, out);
  }
}

void ResponsesExchange::write_finish(std::string& out) {
  const char* status = final_status();
  close_part(status, out);
  const bool cut = answer(0).reason() == FinishReason::kLength;
  emit(cut ? "response.incomplete" : "response.completed", {{"response", response_json(status)}},
       out);
}

void ResponsesExchange::write_step(size_t, const AnswerStep& step, std::string& out) {
  if (sequence_ == 0) write_start(out);
  if (step.token != nullptr && step.token->logprobs && step.token->kind == PieceKind::kContent) {
    held_.push_back(*step.token);
  }
  for (const AnswerPiece& piece : step.pieces) write_piece(piece, out);
  if (step.token == nullptr) write_finish(out);
}

}  // namespace

OpenedExchange open_responses(const CheckedCall& call) {
  ChatTask task = QUERN_TRY(read_task(call));
  PreparedAnswers prepared = QUERN_TRY(prepare_chat(std::move(task), call.call));
  OrderedJson echo = echoed(call.body, prepared.requests.front().sampling);
  return std::make_unique<ResponsesExchange>(std::move(prepared), std::move(echo));
}

}  // namespace quern
