// POST /v1/chat/completions.
#include <utility>

#include <fmt/format.h>

#include "serve/api_endpoints.h"
#include "serve/api_fields.h"
#include "serve/api_json.h"
#include "serve/api_task.h"

namespace quern {
namespace {

Schema constant(const char* text) { return constant_schema({text}); }

Schema content_schema() {
  const Schema text =
      object_schema({required("type", constant("text")), required("text", string_schema())});
  return union_schema({string_schema(), array_schema(text, 1)});
}

Schema assistant_content_schema() {
  const Schema text =
      object_schema({required("type", constant("text")), required("text", string_schema())});
  const Schema refusal =
      object_schema({required("type", constant("refusal")), required("refusal", string_schema())});
  return union_schema({string_schema(), array_schema(union_schema({text, refusal}), 1)});
}

Schema tool_call_schema() {
  const Schema function =
      object_schema({required("name", string_schema(1)), required("arguments", string_schema())});
  return object_schema({required("id", string_schema()),
                        required("type", constant("function")),
                        required("function", function),
                        {"index", integer_schema(0, INT32_MAX)}});
}

Schema plain_message_schema(std::vector<OrderedJson> roles) {
  return object_schema({required("role", constant_schema(std::move(roles))),
                        required("content", content_schema()),
                        {"name", string_schema()}});
}

// An answer of this server comes back as it went out.
Schema assistant_message_schema() {
  return object_schema({required("role", constant("assistant")),
                        {"content", assistant_content_schema()},
                        {"refusal", string_schema()},
                        {"name", string_schema()},
                        {"reasoning", string_schema()},
                        {"reasoning_content", string_schema()},
                        {"tool_calls", array_schema(tool_call_schema())},
                        {"annotations", array_schema(any_schema(), 0, 0)},
                        {"audio", null_schema()},
                        {"function_call", refused_schema("calls go into tool_calls")}});
}

Schema tool_message_schema() {
  return object_schema({required("role", constant("tool")),
                        required("content", content_schema()),
                        required("tool_call_id", string_schema()),
                        {"name", string_schema()}});
}

Schema tool_choice_schema() {
  const Schema named =
      object_schema({required("type", constant("function")),
                     required("function", object_schema({required("name", name_schema())}))});
  return union_schema({constant_schema({"none", "auto", "required"}), named});
}

Schema response_format_schema() {
  const Schema definition = object_schema({required("name", name_schema()),
                                           {"description", string_schema()},
                                           {"schema", open_object_schema()},
                                           {"strict", boolean_schema()}});
  return union_schema({object_schema({required("type", constant("text"))}),
                       object_schema({required("type", constant("json_object"))}),
                       object_schema({required("type", constant("json_schema")),
                                      required("json_schema", definition)})});
}

SchemaMembers chat_only_members() {
  return {
      {"logprobs", boolean_schema()},
      {"top_logprobs", integer_schema(0, kMaxLogprobs)},
      {"max_completion_tokens", integer_schema(1, INT32_MAX)},
      {"response_format", response_format_schema()},
      {"tool_choice", tool_choice_schema()},
      {"parallel_tool_calls", boolean_schema()},
      {"reasoning_effort",
       constant_schema({"none", "minimal", "low", "medium", "high", "xhigh", "max"})},
      {"modalities", array_schema(constant("text"), 1, 1)},
      {"audio", refused_schema("this server makes no audio")},
      {"functions", refused_schema("tools has taken its place")},
      {"function_call", refused_schema("tool_choice has taken its place")},
  };
}

}  // namespace

Schema messages_schema() {
  const Schema message = union_schema({plain_message_schema({"system", "developer", "user"}),
                                       assistant_message_schema(), tool_message_schema()});
  return array_schema(message, 1);
}

Schema tools_schema() {
  const Schema function = object_schema({required("name", name_schema()),
                                         {"description", string_schema()},
                                         {"parameters", open_object_schema()},
                                         {"strict", boolean_schema()}});
  return array_schema(
      object_schema({required("type", constant("function")), required("function", function)}), 0,
      kMaxTools);
}

SchemaMembers chat_prompt_members() {
  return {
      required("messages", messages_schema()),
      {"tools", tools_schema()},
      {"documents", array_schema(open_object_schema(), 1)},
      {"chat_template_kwargs",
       described(open_object_schema(), "Variables of the model's chat template.")},
      {"chat_template", refused_schema("a template comes with its model alone")},
      {"add_generation_prompt", boolean_schema()},
      {"continue_final_message",
       described(boolean_schema(), "The answer goes on where the last message stops.")},
  };
}

Schema chat_request_schema() {
  return object_schema(SchemaMembers{model_member()} + chat_prompt_members() + sampling_members() +
                       answer_members() + chat_only_members() + structured_output_members() +
                       placement_members() + no_op_members());
}

namespace {

Schema answer_message_schema() {
  const Schema call = object_schema(
      {required("id", string_schema()), required("type", constant("function")),
       required("function", object_schema({required("name", string_schema()),
                                           required("arguments", string_schema())}))});
  return object_schema({required("role", constant("assistant")),
                        required("content", nullable_schema(string_schema())),
                        {"refusal", null_schema()},
                        {"reasoning", string_schema()},
                        {"reasoning_content", string_schema()},
                        {"tool_calls", array_schema(call)}});
}

}  // namespace

Schema chat_response_schema() {
  const Schema choice = object_schema(
      SchemaMembers{required("index", integer_schema(0, kMaxAnswers)),
                    required("message", answer_message_schema()),
                    required("logprobs", token_logprobs_schema()),
                    required("finish_reason", constant_schema({"stop", "length", "tool_calls"}))} +
      choice_extension_members());
  return object_schema(
      {required("id", string_schema()), required("object", constant("chat.completion")),
       required("created", integer_schema(0, INT64_MAX)), required("model", string_schema()),
       required("system_fingerprint", string_schema()),
       required("choices", array_schema(choice, 1)), required("usage", usage_schema())});
}

namespace {

ApiResult<LengthOptions> read_lengths(const OrderedJson& body) {
  LengthOptions lengths;
  lengths.prompt_field = "messages";
  for (const char* key : {"max_tokens", "max_completion_tokens"}) {
    const OrderedJson* value = find(body, key);
    if (value == nullptr) continue;
    const int64_t tokens = as_integer(*value);
    if (lengths.max_tokens && *lengths.max_tokens != tokens) {
      return invalid_request("max_completion_tokens",
                             fmt::format("max_tokens is {} and max_completion_tokens is {}; only "
                                         "one of them may be given",
                                         *lengths.max_tokens, tokens));
    }
    lengths.max_tokens = tokens;
  }
  if (const OrderedJson* keep = find(body, "truncate_prompt_tokens")) {
    lengths.truncate_prompt = as_integer(*keep);
  }
  return lengths;
}

ApiResult<std::optional<int32_t>> read_top_logprobs(const OrderedJson& body) {
  const bool wanted = is_true(body, "logprobs");
  const OrderedJson* count = find(body, "top_logprobs");
  if (!wanted && count != nullptr && as_integer(*count) > 0) {
    return invalid_request("top_logprobs", "top_logprobs needs logprobs to be true");
  }
  if (!wanted) return std::optional<int32_t>();
  return std::optional<int32_t>(static_cast<int32_t>(integer_or(body, "top_logprobs", 0)));
}

void read_tool_choice(const OrderedJson& body, ChatTask& task) {
  const OrderedJson* choice = find(body, "tool_choice");
  if (choice == nullptr || *choice == "auto") return;
  if (choice->is_object()) {
    task.tool_choice = ToolChoice::kNamed;
    task.tool = (*choice)["function"]["name"].get<std::string>();
    return;
  }
  task.tool_choice = *choice == "none" ? ToolChoice::kNone : ToolChoice::kRequired;
}

// Templates know "system" alone.
std::string template_role(const std::string& role) { return role == "developer" ? "system" : role; }

OrderedJson template_message(const OrderedJson& message) {
  OrderedJson out = {{"role", template_role(message["role"].get<std::string>())}};
  const OrderedJson* content = find(message, "content");
  out["content"] = content == nullptr ? "" : content_text(*content);
  for (const char* key : {"name", "tool_call_id"}) {
    if (const OrderedJson* value = find(message, key)) out[key] = *value;
  }
  for (const char* key : {"reasoning", "reasoning_content"}) {
    if (const OrderedJson* value = find(message, key)) out["reasoning_content"] = *value;
  }
  const OrderedJson* calls = find(message, "tool_calls");
  if (calls == nullptr || calls->empty()) return out;
  OrderedJson& written = out["tool_calls"] = OrderedJson::array();
  for (const OrderedJson& call : *calls) {
    const OrderedJson& function = call["function"];
    written.push_back(template_tool_call(call["id"], function["name"],
                                         function["arguments"].get_ref<const std::string&>()));
  }
  return out;
}

ApiResult<PromptEnd> read_prompt_end(const OrderedJson& body) {
  const OrderedJson* add = find(body, "add_generation_prompt");
  if (is_true(body, "continue_final_message")) {
    if (add != nullptr && *add == true) {
      return invalid_request("continue_final_message",
                             "continue_final_message and add_generation_prompt exclude each "
                             "other");
    }
    return PromptEnd::kContinue;
  }
  return add == nullptr || *add == true ? PromptEnd::kAnswer : PromptEnd::kNothing;
}

}  // namespace

ApiResult<ChatPrompt> read_chat_prompt(const OrderedJson& body) {
  ChatPrompt prompt;
  for (const OrderedJson& message : body["messages"]) {
    prompt.messages.push_back(template_message(message));
  }
  prompt.tools = QUERN_TRY(read_tools(find(body, "tools")));
  if (const OrderedJson* documents = find(body, "documents")) prompt.documents = *documents;
  if (const OrderedJson* variables = find(body, "chat_template_kwargs")) {
    prompt.variables = *variables;
  }
  prompt.end = QUERN_TRY(read_prompt_end(body));
  return prompt;
}

namespace {

ApiResult<ChatTask> read_task(const CheckedCall& call) {
  const OrderedJson& body = call.body;
  ChatTask task;
  task.model = QUERN_TRY(find_model(call.models, body));
  task.prompt = QUERN_TRY(read_chat_prompt(body));
  task.sampling = body;
  task.options = read_answer_options(body);
  if (!task.options.stream && find(body, "stream_options") != nullptr) {
    return invalid_request("stream_options", "stream_options needs stream to be true");
  }
  task.lengths = QUERN_TRY(read_lengths(body));
  task.top_logprobs = QUERN_TRY(read_top_logprobs(body));
  task.form = QUERN_TRY(read_output_form(body));
  read_tool_choice(body, task);
  if (const OrderedJson* parallel = find(body, "parallel_tool_calls")) {
    task.parallel_calls = parallel->get<bool>();
  }
  if (const OrderedJson* effort = find(body, "reasoning_effort")) {
    QUERN_TRY(set_reasoning_effort(*task.model, effort->get<std::string>(), "reasoning_effort",
                                   task.prompt.variables));
  }
  task.id = fmt::format("chatcmpl-{}", id_suffix(call.call.request_id));
  task.call_id_prefix = fmt::format("call_{}_", id_suffix(call.call.request_id));
  return task;
}

// --- Answers ------------------------------------------------------------------------------------

class ChatExchange final : public AnswersExchange {
 public:
  explicit ChatExchange(PreparedAnswers prepared)
      : AnswersExchange(std::move(prepared)), started_(answer_count(), false) {}

 protected:
  void write_step(size_t index, const AnswerStep& step, std::string& out) override;
  void write_stream_end(std::string& out) override;
  OrderedJson body() const override;

 private:
  OrderedJson head(const char* object) const;
  OrderedJson choice_json(const Answer& answer, size_t index) const;
  OrderedJson message_json(const Answer& answer) const;
  OrderedJson logprobs_json(const Answer& answer) const;
  void write_chunk(OrderedJson choice, std::string& out) const;
  void write_start(size_t index, std::string& out);
  void write_token(size_t index, const AnswerStep& step, std::string& out) const;
  void write_finish(size_t index, std::string& out) const;

  std::vector<bool> started_;  // which answers have sent their role
};

OrderedJson chunk_choice(size_t index, OrderedJson delta) {
  return {{"index", index},
          {"delta", std::move(delta)},
          {"logprobs", nullptr},
          {"finish_reason", nullptr}};
}

OrderedJson logprobs_of(OrderedJson content) {
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

OrderedJson call_json(const AnswerCall& call) {
  return {{"id", call.id},
          {"type", "function"},
          {"function", {{"name", call.name}, {"arguments", call.arguments}}}};
}

// What a piece adds to the message.
OrderedJson delta_json(const AnswerPiece& piece, const Answer& answer) {
  switch (piece.kind) {
    case PieceKind::kContent:
      return {{"content", piece.text}};
    case PieceKind::kReasoning:
      return {{"reasoning", piece.text}, {"reasoning_content", piece.text}};
    case PieceKind::kCallName: {
      OrderedJson call = {{"index", piece.call}};
      call.update(call_json({answer.calls()[piece.call].id, piece.text, ""}));
      return {{"tool_calls", OrderedJson::array({std::move(call)})}};
    }
    case PieceKind::kCallArguments:
      return {{"tool_calls", OrderedJson::array({{{"index", piece.call},
                                                  {"function", {{"arguments", piece.text}}}}})}};
  }
  return nullptr;
}

OrderedJson ChatExchange::head(const char* object) const {
  return {{"id", prepared().id},
          {"object", object},
          {"created", prepared().created_unix_s},
          {"model", model()->id},
          {"system_fingerprint", model()->fingerprint}};
}

void ChatExchange::write_chunk(OrderedJson choice, std::string& out) const {
  OrderedJson chunk = head("chat.completion.chunk");
  chunk["choices"] = OrderedJson::array({std::move(choice)});
  if (options().continuous_usage) {
    chunk["usage"] = usage_json(total_usage());
  } else if (options().include_usage) {
    chunk["usage"] = nullptr;
  }
  append_data(chunk, out);
}

void ChatExchange::write_start(size_t index, std::string& out) {
  started_[index] = true;
  OrderedJson choice = chunk_choice(index, {{"role", "assistant"}, {"content", ""}});
  const Answer& it = answer(index);
  if (options().token_ids) choice["prompt_token_ids"] = it.prompt();
  if (!it.prompt_logprobs().empty()) {
    choice["prompt_logprobs"] = prompt_logprobs_json(tokenizer(), it);
  }
  write_chunk(std::move(choice), out);
}

// A token's logprob and id go with its first piece; one without text has a chunk for them alone.
void ChatExchange::write_token(size_t index, const AnswerStep& step, std::string& out) const {
  const bool logprobs = step.token != nullptr && step.token->logprobs;
  const bool ids = step.token != nullptr && options().token_ids;
  std::vector<OrderedJson> deltas;
  for (const AnswerPiece& piece : step.pieces) deltas.push_back(delta_json(piece, answer(index)));
  if (deltas.empty() && (logprobs || ids)) deltas.push_back({{"content", ""}});
  for (size_t i = 0; i < deltas.size(); ++i) {
    OrderedJson choice = chunk_choice(index, std::move(deltas[i]));
    if (i == 0 && logprobs) {
      choice["logprobs"] =
          logprobs_of(OrderedJson::array({token_logprob_json(tokenizer(), *step.token)}));
    }
    if (i == 0 && ids) choice["token_ids"] = OrderedJson::array({step.token->token});
    write_chunk(std::move(choice), out);
  }
}

void ChatExchange::write_finish(size_t index, std::string& out) const {
  OrderedJson choice = chunk_choice(index, OrderedJson::object());
  choice["finish_reason"] = openai_finish_reason(answer(index));
  choice["stop_reason"] = stop_reason_json(answer(index));
  write_chunk(std::move(choice), out);
}

void ChatExchange::write_step(size_t index, const AnswerStep& step, std::string& out) {
  if (!started_[index]) write_start(index, out);
  write_token(index, step, out);
  if (step.token == nullptr) write_finish(index, out);
}

void ChatExchange::write_stream_end(std::string& out) {
  if (options().include_usage) {
    OrderedJson chunk = head("chat.completion.chunk");
    chunk["choices"] = OrderedJson::array();
    chunk["usage"] = usage_json(total_usage());
    append_data(chunk, out);
  }
  out += "data: [DONE]\n\n";
}

OrderedJson ChatExchange::message_json(const Answer& answer) const {
  OrderedJson message = {
      {"role", "assistant"}, {"content", answer.content()}, {"refusal", nullptr}};
  if (answer.content().empty() && !answer.calls().empty()) message["content"] = nullptr;
  if (!answer.reasoning().empty()) {
    message["reasoning"] = answer.reasoning();
    message["reasoning_content"] = answer.reasoning();
  }
  for (const AnswerCall& call : answer.calls()) message["tool_calls"].push_back(call_json(call));
  return message;
}

OrderedJson ChatExchange::logprobs_json(const Answer& answer) const {
  if (answer.tokens().empty()) return nullptr;
  OrderedJson content = OrderedJson::array();
  for (const AnswerToken& token : answer.tokens()) {
    if (!token.logprobs) return nullptr;
    content.push_back(token_logprob_json(tokenizer(), token));
  }
  return logprobs_of(std::move(content));
}

OrderedJson ChatExchange::choice_json(const Answer& answer, size_t index) const {
  OrderedJson choice = {{"index", index},
                        {"message", message_json(answer)},
                        {"logprobs", logprobs_json(answer)},
                        {"finish_reason", openai_finish_reason(answer)},
                        {"stop_reason", stop_reason_json(answer)}};
  if (options().token_ids) {
    OrderedJson& ids = choice["token_ids"] = OrderedJson::array();
    for (const AnswerToken& token : answer.tokens()) ids.push_back(token.token);
    choice["prompt_token_ids"] = answer.prompt();
  }
  if (!answer.prompt_logprobs().empty()) {
    choice["prompt_logprobs"] = prompt_logprobs_json(tokenizer(), answer);
  }
  return choice;
}

OrderedJson ChatExchange::body() const {
  OrderedJson body = head("chat.completion");
  OrderedJson& choices = body["choices"] = OrderedJson::array();
  for (size_t i = 0; i < answer_count(); ++i) choices.push_back(choice_json(answer(i), i));
  body["usage"] = usage_json(total_usage());
  return body;
}

ApiResult<PreparedAnswers> prepare(const CheckedCall& call) {
  ChatTask task = QUERN_TRY(read_task(call));
  return prepare_chat(std::move(task), call.call);
}

}  // namespace

OpenedExchange open_chat(const CheckedCall& call) {
  return std::make_unique<ChatExchange>(QUERN_TRY(prepare(call)));
}

}  // namespace quern
