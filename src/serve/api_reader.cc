#include "serve/api_reader.h"

#include <fmt/format.h>

#include "serve/api_json.h"
#include "text/grammar.h"
#include "text/tool_dialect.h"

namespace quern {
namespace {

ToolGrammarRequest grammar_request(ToolDialect dialect, const ForcedCalls& forced) {
  ToolGrammarRequest request;
  request.dialect = dialect;
  request.calls = forced.calls;
  for (const OrderedJson& tool : forced.tools) {
    const OrderedJson& function = tool["function"];
    ToolFunction made;
    made.name = function["name"].get<std::string>();
    if (!forced.name.empty() && made.name != forced.name) continue;
    if (const OrderedJson* schema = find(function, "parameters")) {
      made.parameters_json = dump(*schema);
    }
    request.functions.push_back(std::move(made));
  }
  return request;
}

// Tells apart requests that make other grammars.
std::string key_of(const ToolGrammarRequest& request) {
  std::string key = fmt::format("calls {} {}", static_cast<int>(request.dialect),
                                static_cast<int>(request.calls));
  for (const ToolFunction& function : request.functions) {
    key += fmt::format("\n{} {}", function.name, function.parameters_json);
  }
  return key;
}

}  // namespace

std::unique_ptr<AnswerReader> make_answer_reader(const ServedModel&,
                                                 std::string_view,
                                                 const OrderedJson&) {
  return nullptr;
}

ApiResult<std::unique_ptr<TokenConstraint>> make_call_constraint(const ServedModel& model,
                                                                 const ForcedCalls& forced) {
  const OutputDialect dialect = detect_dialect(model.chat_template_source);
  if (dialect.tools == ToolDialect::kNone) {
    return invalid_request("tool_choice",
                           "tool_choice must be \"none\" or \"auto\": the form of this model's "
                           "calls is not known");
  }
  const ToolGrammarRequest request = grammar_request(dialect.tools, forced);
  const auto compile = [&](const GrammarCompiler& compiler) {
    return compiler.tool_calls(request);
  };
  auto grammar = model.grammars->get(*model.tokenizer, key_of(request), compile);
  if (!grammar) return invalid_request("tools", grammar.error().message);
  return make_constraint(*std::move(grammar));
}

}  // namespace quern
