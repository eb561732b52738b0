// A conversation to be answered, in the terms that all endpoints for conversations share.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "serve/api_constraint.h"
#include "serve/api_exchange.h"
#include "serve/api_prompt.h"

namespace quern {

enum class ToolChoice : uint8_t {
  kNone,      // no calls
  kAuto,      // the model decides
  kRequired,  // at least one call
  kNamed,     // a call of the tool `tool`
};

struct ChatTask {
  const ServedModel* model = nullptr;
  ChatPrompt prompt;     // tools: what the caller offers
  OrderedJson sampling;  // fields as /v1/chat/completions names them; other fields do not matter
  AnswerOptions options;
  LengthOptions lengths;
  std::optional<int32_t> top_logprobs;
  std::optional<OutputForm> form;
  ToolChoice tool_choice = ToolChoice::kAuto;
  std::string tool;  // of kNamed
  bool parallel_calls = true;
  std::string id;  // of the answer
  std::string call_id_prefix;
};

// Renders, encodes, compiles. Errors: those of render_chat, set_prompt and make_constraint; 400 for
// a tool choice that the tools do not allow.
ApiResult<PreparedAnswers> prepare_chat(ChatTask task, const ApiCall& call);

// The model that the body names, or the first one. Errors: 404 with code model_not_found.
ApiResult<const ServedModel*> find_model(const ServedModels& models, const OrderedJson& body);

// The tools as templates know them: [{"type": "function", "function": {...}}]. Null without any.
// Requires an array that its schema has approved. Errors: 400 for a name given twice.
ApiResult<OrderedJson> read_tools(const OrderedJson* tools);

// Sets what reasoning_effort asks for in the variables of a template that knows of it: the variable
// of that name, else enable_thinking. Errors: 400 when the template has neither.
ApiResult<Unit> set_reasoning_effort(const ServedModel& model,
                                     const std::string& effort,
                                     const std::string& field,
                                     OrderedJson& variables);

}  // namespace quern
