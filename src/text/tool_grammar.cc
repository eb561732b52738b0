#include "text/tool_grammar.h"

#include <algorithm>
#include <deque>

#include <fmt/format.h>

#include "text/chat_template.h"
#include "text/grammar_text.h"
#include "text/json_schema.h"

namespace quern {
namespace {

constexpr size_t kMaxNameBytes = 128;

bool is_name(std::string_view name) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.';
  };
  return !name.empty() && name.size() <= kMaxNameBytes &&
         std::all_of(name.begin(), name.end(), allowed);
}

class ToolGrammar {
 public:
  ToolGrammar(const ToolGrammarRequest& request,
              const TokenTrie& trie,
              JsonExpressions& json,
              Expressions& out)
      : request_(request), trie_(trie), json_(json), out_(out) {}

  Result<ExpressionId> run();

 private:
  struct Call {
    std::string name;
    ExpressionId arguments = 0;
  };

  Result<Unit> read_functions();
  ExpressionId text(std::string_view literal) { return out_.literal(literal); }
  ExpressionId marker(std::string_view name);
  ExpressionId any_of(ExpressionId (ToolGrammar::*call)(const Call&));
  ExpressionId object(const Call& call, const char* arguments_key);
  ExpressionId with_arguments(const Call& call) { return object(call, "arguments"); }
  ExpressionId with_parameters(const Call& call) { return object(call, "parameters"); }
  ExpressionId mistral_named(const Call& call);
  ExpressionId harmony_message(const Call& call);
  ExpressionId repeated(ExpressionId call, ExpressionId separator);
  ExpressionId mistral();
  ExpressionId hermes();
  ExpressionId harmony();

  const ToolGrammarRequest& request_;
  const TokenTrie& trie_;
  JsonExpressions& json_;
  Expressions& out_;
  std::deque<OrderedJson> schemas_;
  std::vector<Call> calls_;
};

ExpressionId ToolGrammar::marker(std::string_view name) {
  if (const std::optional<int32_t> id = trie_.special_id(name)) return out_.token(*id);
  return text(name);
}

Result<Unit> ToolGrammar::read_functions() {
  for (size_t i = 0; i < request_.functions.size(); ++i) {
    const ToolFunction& function = request_.functions[i];
    const std::string where = fmt::format("tools[{}]", i);
    if (!is_name(function.name)) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("{}.name: expected 1 to {} letters, digits, `_`, `-` or `.`", where,
                               kMaxNameBytes)};
    }
    const std::string place = where + ".parameters";
    ExpressionId arguments = text("{}");
    if (!function.parameters_json.empty()) {
      schemas_.push_back(QUERN_TRY(parse_ordered_json(function.parameters_json, place)));
      arguments = QUERN_TRY(schema_expression(schemas_.back(), place, json_, out_));
    }
    calls_.push_back({function.name, arguments});
  }
  return Unit{};
}

ExpressionId ToolGrammar::any_of(ExpressionId (ToolGrammar::*call)(const Call&)) {
  std::vector<ExpressionId> branches;
  for (const Call& one : calls_) branches.push_back((this->*call)(one));
  return out_.choice(std::move(branches));
}

ExpressionId ToolGrammar::object(const Call& call, const char* arguments_key) {
  return out_.sequence({text(fmt::format("{{\"name\": \"{}\", \"{}\": ", call.name, arguments_key)),
                        call.arguments, text("}")});
}

ExpressionId ToolGrammar::repeated(ExpressionId call, ExpressionId separator) {
  if (request_.calls == ParallelCalls::kOne) return call;
  return out_.sequence({call, out_.repeat(out_.sequence({separator, call}), 0, kUnbounded)});
}

ExpressionId ToolGrammar::hermes() {
  const ExpressionId call =
      out_.sequence({marker("<tool_call>"), text("\n"), any_of(&ToolGrammar::with_arguments),
                     text("\n"), marker("</tool_call>")});
  return repeated(call, text("\n"));
}

ExpressionId ToolGrammar::mistral_named(const Call& call) {
  return out_.sequence({text(call.name), marker("[ARGS]"), call.arguments});
}

// Vocabularies with [ARGS] belong to models that write the name before it.
ExpressionId ToolGrammar::mistral() {
  if (trie_.special_id("[ARGS]")) {
    const ExpressionId call =
        out_.sequence({marker("[TOOL_CALLS]"), any_of(&ToolGrammar::mistral_named)});
    return repeated(call, out_.empty());
  }
  return out_.sequence({marker("[TOOL_CALLS]"), text("["),
                        repeated(any_of(&ToolGrammar::with_arguments), text(", ")), text("]")});
}

ExpressionId ToolGrammar::harmony_message(const Call& call) {
  return out_.sequence({text("commentary to=functions." + call.name + " "), marker("<|constrain|>"),
                        text("json"), marker("<|message|>"), call.arguments});
}

// The model may reason first, in a message of its own.
ExpressionId ToolGrammar::harmony() {
  const ExpressionId words =
      out_.repeat(encode_set(CodePointSet::all(), TextEncoding::kPlain, out_), 0, kUnbounded);
  const ExpressionId analysis =
      out_.sequence({marker("<|channel|>"), text("analysis"), marker("<|message|>"), words,
                     marker("<|end|>"), marker("<|start|>"), text("assistant")});
  return out_.sequence(
      {out_.optional(analysis), marker("<|channel|>"), any_of(&ToolGrammar::harmony_message)});
}

Result<ExpressionId> ToolGrammar::run() {
  if (request_.functions.empty()) {
    return Error{ErrorCode::kInvalidArgument, "tools: expected at least one function"};
  }
  QUERN_TRY(read_functions());
  switch (request_.dialect) {
    case ToolDialect::kLlama3:
      return any_of(&ToolGrammar::with_parameters);
    case ToolDialect::kHermes:
      return hermes();
    case ToolDialect::kMistral:
      return mistral();
    case ToolDialect::kHarmony:
      return harmony();
    case ToolDialect::kNone:
      break;
  }
  return Error{ErrorCode::kInvalidArgument,
               "tools: the model's chat template has no form for tool calls"};
}

}  // namespace

Result<ExpressionId> tool_expression(const ToolGrammarRequest& request,
                                     const TokenTrie& trie,
                                     JsonExpressions& json,
                                     Expressions& out) {
  return ToolGrammar(request, trie, json, out).run();
}

}  // namespace quern
