// Streaming detokenizer: turns generated tokens into text that is valid UTF-8 at every step.
#pragma once

#include <cstdint>
#include <string>

#include "text/tokenizer.h"

namespace quern {

// All text pushed out, finish() included, is the decoded bytes with each maximal invalid part
// replaced by U+FFFD. Special tokens are left out. Borrows the tokenizer.
class Detokenizer {
 public:
  explicit Detokenizer(const Tokenizer& tokenizer,
                       TextPosition position = TextPosition::kContinuation)
      : tokenizer_(&tokenizer), position_(position) {}

  // The text that is complete with this token; at most 3 bytes of a code point are held back.
  std::string push(int32_t token);

  // Ends the text: U+FFFD when a code point was left incomplete, else nothing.
  std::string finish();

 private:
  const Tokenizer* tokenizer_;
  TextPosition position_;
  std::string held_;
};

}  // namespace quern
