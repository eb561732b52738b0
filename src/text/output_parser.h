// Splits the text that a model streams into content, reasoning and tool calls, one byte at a time:
// however the text is cut into pieces, the result is the same.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/tool_dialect.h"

namespace quern {

enum class OutputKind {
  kContent,
  kReasoning,
  kToolBegin,      // a call begins: its name and index
  kToolArguments,  // more of the arguments' JSON text
};

struct OutputDelta {
  OutputKind kind = OutputKind::kContent;
  std::string text;   // of the kind; the function's name of kToolBegin
  int32_t index = 0;  // of the call, counted from 0
  std::string id;     // of kToolBegin: as the model gave it, else empty

  friend bool operator==(const OutputDelta&, const OutputDelta&) = default;
};

// Reads markers as text: the caller decodes with SpecialOutput::kKeep. What looks like a call and
// turns out to be none is content as it was written; a call that has begun stays one, whatever
// follows. White space around calls and reasoning is left out. Never fails.
class OutputParser {
 public:
  explicit OutputParser(OutputDialect dialect);
  OutputParser(OutputParser&&) noexcept;
  OutputParser& operator=(OutputParser&&) noexcept;
  ~OutputParser();

  // What is certain with this piece. Neighbours of one kind and index are one delta.
  std::vector<OutputDelta> feed(std::string_view piece);

  // What was held back. Call once, behind the last piece.
  std::vector<OutputDelta> finish();

  // Calls begun so far: an answer with any finishes for "tool_calls".
  int32_t tool_calls() const;

 private:
  class Machine;
  std::unique_ptr<Machine> machine_;
};

}  // namespace quern
