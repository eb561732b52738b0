// Tool calls as expressions of a grammar: the envelope of a model's dialect around arguments that
// validate against the parameters of the function.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "text/grammar_expression.h"
#include "text/grammar_json.h"
#include "text/grammar_trie.h"
#include "text/tool_dialect.h"

namespace quern {

// A function that the model may call.
struct ToolFunction {
  std::string name;
  std::string parameters_json;  // a JSON schema; empty: no parameters
};

enum class ParallelCalls { kOne, kMany };

// Which calls an answer must make.
struct ToolGrammarRequest {
  ToolDialect dialect = ToolDialect::kHermes;
  std::vector<ToolFunction> functions;        // the one that was named, or all of them
  ParallelCalls calls = ParallelCalls::kOne;  // Llama 3 and harmony make one call at a time
};

// At least one call of the functions. Markers that the vocabulary has as special tokens are those
// tokens, others are text. Errors: kInvalidArgument for a dialect without calls, no functions, a
// name that is not 1 to 128 letters, digits, `_`, `-` or `.`, parameters that are no supported
// schema; the message names tools[i].
Result<ExpressionId> tool_expression(const ToolGrammarRequest& request,
                                     const TokenTrie& trie,
                                     JsonExpressions& json,
                                     Expressions& out);

}  // namespace quern
