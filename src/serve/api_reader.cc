#include "serve/api_reader.h"

namespace quern {

std::unique_ptr<AnswerReader> make_answer_reader(const ServedModel&,
                                                 std::string_view,
                                                 const OrderedJson&) {
  return nullptr;
}

ApiResult<std::unique_ptr<TokenConstraint>> make_call_constraint(const ServedModel&,
                                                                 const OrderedJson&,
                                                                 std::string_view) {
  return invalid_request(
      "tool_choice",
      "tool_choice must be \"none\" or \"auto\": this model's form of tool calls "
      "is not known");
}

}  // namespace quern
