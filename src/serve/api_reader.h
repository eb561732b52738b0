// What the models of a template's dialect write: reasoning, tool calls and how calls are forced.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "serve/api_answer.h"
#include "serve/api_error.h"
#include "serve/served_model.h"
#include "text/token_constraint.h"

namespace quern {

// A reader of answers to the rendered prompt; tool calls are told apart only where there are tools
// (not null). nullptr when such answers are content alone.
std::unique_ptr<AnswerReader> make_answer_reader(const ServedModel& model,
                                                 std::string_view prompt,
                                                 const OrderedJson& tools);

// Holds an answer to calls of `tools`: of the one named `name`, or of any when it is empty. Errors:
// 400 when the model's dialect is not known or a tool's parameters are no schema that compiles.
ApiResult<std::unique_ptr<TokenConstraint>> make_call_constraint(const ServedModel& model,
                                                                 const OrderedJson& tools,
                                                                 std::string_view name);

}  // namespace quern
