#include "serve/api_task.h"

#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "serve/api_json.h"
#include "serve/api_reader.h"

namespace quern {
namespace {

bool offers(const OrderedJson& tools, const std::string& name) {
  return std::any_of(tools.begin(), tools.end(),
                     [&](const OrderedJson& tool) { return tool["function"]["name"] == name; });
}

ApiResult<Unit> check_tool_choice(const ChatTask& task) {
  const bool forced =
      task.tool_choice == ToolChoice::kRequired || task.tool_choice == ToolChoice::kNamed;
  if (!forced) return Unit{};
  if (task.prompt.tools.is_null()) {
    return invalid_request("tool_choice", "tool_choice asks for a call, but there are no tools");
  }
  if (task.tool_choice == ToolChoice::kNamed && !offers(task.prompt.tools, task.tool)) {
    return invalid_request("tool_choice",
                           fmt::format("tool_choice names {}, which is not among the tools",
                                       shown(OrderedJson(task.tool))));
  }
  if (task.form) {
    return invalid_request(task.form->field,
                           fmt::format("{} and a tool_choice that asks for a call exclude each "
                                       "other",
                                       task.form->field));
  }
  return Unit{};
}

AnswerForm form_of(const ChatTask& task) {
  if (task.form) return AnswerForm::kForm;
  const bool forced =
      task.tool_choice == ToolChoice::kRequired || task.tool_choice == ToolChoice::kNamed;
  return forced ? AnswerForm::kCalls : AnswerForm::kFree;
}

Answer make_answer(const ChatTask& task,
                   const Request& request,
                   const RenderedPrompt& prompt,
                   int64_t index) {
  AnswerSetup setup;
  setup.reader = make_answer_reader(*task.model, {prompt.text, task.prompt.tools, form_of(task)});
  setup.call_id_prefix = fmt::format("{}{}_", task.call_id_prefix, index);
  setup.prompt = request.prompt;
  setup.stop_tokens = request.stop_tokens;
  setup.include_stop = task.options.include_stop;
  if (!task.parallel_calls) setup.max_calls = 1;
  return Answer(std::move(setup));
}

ApiResult<std::unique_ptr<TokenConstraint>> constraint_of(const ChatTask& task) {
  if (task.tool_choice == ToolChoice::kNamed) {
    return make_call_constraint(*task.model, {task.prompt.tools, task.tool, ParallelCalls::kOne});
  }
  if (task.tool_choice == ToolChoice::kRequired) {
    return make_call_constraint(
        *task.model,
        {task.prompt.tools, "", task.parallel_calls ? ParallelCalls::kMany : ParallelCalls::kOne});
  }
  if (task.form) return make_form_constraint(*task.model, *task.form);
  return std::unique_ptr<TokenConstraint>();
}

}  // namespace

ApiResult<PreparedAnswers> prepare_chat(ChatTask task, const ApiCall& call) {
  QUERN_TRY(check_tool_choice(task));
  if (task.tool_choice == ToolChoice::kNone) task.prompt.tools = nullptr;
  task.prompt.now_unix_s = call.created_unix_s;
  const RenderedPrompt rendered = QUERN_TRY(render_chat(*task.model, task.prompt));
  PreparedAnswers prepared;
  prepared.model = task.model;
  prepared.options = task.options;
  prepared.answers_per_prompt = task.options.answers;
  prepared.id = task.id;
  prepared.created_unix_s = call.created_unix_s;
  for (int64_t i = 0; i < task.options.answers; ++i) {
    Request request = QUERN_TRY(read_request(task.sampling, *task.model, call.seed));
    request.top_logprobs = task.top_logprobs;
    request.sampling.stream = static_cast<uint64_t>(i);
    QUERN_TRY(set_prompt(request, rendered.tokens, task.lengths, task.model->limits));
    request.constraint = QUERN_TRY(constraint_of(task));
    prepared.answers.push_back(make_answer(task, request, rendered, i));
    prepared.requests.push_back(std::move(request));
  }
  return prepared;
}

ApiResult<const ServedModel*> find_model(const ServedModels& models, const OrderedJson& body) {
  const OrderedJson* id = find(body, "model");
  if (id == nullptr && !models.models.empty()) return models.models.front();
  const ServedModel* named =
      id == nullptr ? nullptr : models.find(id->get_ref<const std::string&>());
  if (named != nullptr) return named;
  std::vector<std::string> known;
  for (const ServedModel* model : models.models) known.push_back(model->id);
  ApiError error = invalid_request(
      "model",
      fmt::format("there is no model {}; there is {}", id == nullptr ? "" : shown(*id),
                  known.empty() ? "none" : fmt::format("{}", fmt::join(known, ", "))),
      "model_not_found");
  error.status = 404;
  return error;
}

ApiResult<OrderedJson> read_tools(const OrderedJson* tools) {
  if (tools == nullptr || tools->empty()) return OrderedJson(nullptr);
  std::set<std::string> names;
  for (size_t i = 0; i < tools->size(); ++i) {
    const std::string name = (*tools)[i]["function"]["name"].get<std::string>();
    if (names.insert(name).second) continue;
    return invalid_request(fmt::format("tools[{}].function.name", i),
                           fmt::format("tools[{}].function.name is {}, which an earlier tool has",
                                       i, shown(OrderedJson(name))));
  }
  return *tools;
}

ApiResult<Unit> set_reasoning_effort(const ServedModel& model,
                                     const std::string& effort,
                                     const std::string& field,
                                     OrderedJson& variables) {
  if (template_mentions(model, "reasoning_effort")) {
    variables["reasoning_effort"] = effort;
  } else if (template_mentions(model, "enable_thinking")) {
    variables["enable_thinking"] = effort != "none";
  } else {
    return invalid_request(field, fmt::format("{} is \"{}\", but this model does not let its "
                                              "reasoning be set",
                                              field, effort));
  }
  return Unit{};
}

}  // namespace quern
