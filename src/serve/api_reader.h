// What the models of a template's dialect write: reasoning, tool calls and how calls are forced.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "serve/api_answer.h"
#include "serve/api_error.h"
#include "serve/served_model.h"
#include "text/token_constraint.h"
#include "text/tool_grammar.h"

namespace quern {

// What an answer is made of, as far as is known before it begins.
enum class AnswerForm : uint8_t {
  kFree,   // whatever the model writes
  kForm,   // held to a form: content alone
  kCalls,  // held to tool calls
};

struct ReaderOptions {
  std::string_view prompt;   // as rendered
  const OrderedJson& tools;  // null: nothing is a call
  AnswerForm form = AnswerForm::kFree;
};

// A reader of answers in the dialect that the model's template speaks. nullptr when such answers
// are content alone.
std::unique_ptr<AnswerReader> make_answer_reader(const ServedModel& model,
                                                 const ReaderOptions& options);

// Which calls an answer must make.
struct ForcedCalls {
  const OrderedJson& tools;  // not null
  std::string name;          // of the only one that may be called; empty: any
  ParallelCalls calls = ParallelCalls::kOne;
};

// Holds an answer to those calls. Errors: 400 when the model's dialect of calls is not known or a
// tool's parameters are no schema that compiles.
ApiResult<std::unique_ptr<TokenConstraint>> make_call_constraint(const ServedModel& model,
                                                                 const ForcedCalls& forced);

}  // namespace quern
