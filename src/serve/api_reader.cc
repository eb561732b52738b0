#include "serve/api_reader.h"

#include <algorithm>

#include <fmt/format.h>

#include "serve/api_json.h"
#include "text/grammar.h"
#include "text/output_parser.h"
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

// The special tokens that dialects are written in.
constexpr std::string_view kMarkers[] = {
    "<think>",       "</think>",    "<tool_call>", "</tool_call>", "<|python_tag|>",
    "[TOOL_CALLS]",  "[ARGS]",      "[CALL_ID]",   "<|start|>",    "<|channel|>",
    "<|constrain|>", "<|message|>", "<|end|>"};

PieceKind piece_kind(OutputKind kind) {
  switch (kind) {
    case OutputKind::kReasoning:
      return PieceKind::kReasoning;
    case OutputKind::kToolBegin:
      return PieceKind::kCallName;
    case OutputKind::kToolArguments:
      return PieceKind::kCallArguments;
    default:
      return PieceKind::kContent;
  }
}

class DialectReader final : public AnswerReader {
 public:
  DialectReader(const ServedModel& model, OutputDialect dialect)
      : model_(model),
        parser_(dialect),
        reasoning_(dialect.reasoning == ReasoningStyle::kThinkOpened) {}

  void read(std::string_view text, std::vector<AnswerPiece>& pieces) override {
    add(parser_.feed(text), pieces);
  }

  void finish(std::vector<AnswerPiece>& pieces) override { add(parser_.finish(), pieces); }

  bool reasoning() const override { return reasoning_; }

  std::string_view marker(int32_t token) const override {
    const Tokenizer& tokenizer = *model_.tokenizer;
    const auto& ends = model_.eos_ids;
    if (!tokenizer.is_special(token)) return {};
    if (std::find(ends.begin(), ends.end(), token) != ends.end()) return {};
    const std::string_view name = tokenizer.token(token);
    const bool known =
        std::find(std::begin(kMarkers), std::end(kMarkers), name) != std::end(kMarkers);
    return known ? name : std::string_view();
  }

 private:
  void add(std::vector<OutputDelta> deltas, std::vector<AnswerPiece>& pieces) {
    for (OutputDelta& delta : deltas) {
      reasoning_ = delta.kind == OutputKind::kReasoning;
      pieces.push_back({piece_kind(delta.kind), std::move(delta.text), 0, std::move(delta.id)});
    }
  }

  const ServedModel& model_;
  OutputParser parser_;
  bool reasoning_;
};

}  // namespace

std::unique_ptr<AnswerReader> make_answer_reader(const ServedModel& model,
                                                 const ReaderOptions& options) {
  if (options.form == AnswerForm::kForm) return nullptr;
  OutputDialect dialect = detect_dialect(model.chat_template_source);
  // Harmony's markers stand around all that is said.
  if (options.tools.is_null() && dialect.tools != ToolDialect::kHarmony) {
    dialect.tools = ToolDialect::kNone;
  }
  if (dialect.reasoning != ReasoningStyle::kNone) {
    dialect.reasoning =
        opens_reasoning(options.prompt) ? ReasoningStyle::kThinkOpened : ReasoningStyle::kThink;
  }
  if (options.form == AnswerForm::kCalls) dialect.reasoning = ReasoningStyle::kNone;
  if (dialect == OutputDialect{}) return nullptr;
  return std::make_unique<DialectReader>(model, dialect);
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
