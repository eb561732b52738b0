// Forms that an answer is held to: JSON, a JSON schema, an expression, a grammar, a choice.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "serve/api_error.h"
#include "serve/served_model.h"
#include "text/token_constraint.h"

namespace quern {

enum class FormKind : uint8_t { kJson, kJsonSchema, kExpression, kGrammar };

struct OutputForm {
  FormKind kind = FormKind::kJson;
  std::string source;  // the schema as JSON, the expression or the grammar
  std::string field;   // of the request, for errors
};

// From response_format, structured_outputs and the guided_* fields; nothing when the text is free.
// Errors: 400 for more than one of them, or none or several members of structured_outputs.
ApiResult<std::optional<OutputForm>> read_output_form(const OrderedJson& body);

// The form of a response_format object, which is also text.format of /v1/responses. `field` names
// it. Requires an object that its schema has approved.
std::optional<OutputForm> read_response_format(const OrderedJson& format, std::string field);

// The state of one answer that is held to the form. Errors: 400 for a form that is malformed or
// exceeds a limit of compilation.
ApiResult<std::unique_ptr<TokenConstraint>> make_form_constraint(const ServedModel& model,
                                                                 const OutputForm& form);

}  // namespace quern
