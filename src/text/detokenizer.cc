#include "text/detokenizer.h"

#include "text/unicode.h"

namespace quern {

std::string Detokenizer::push(int32_t token) {
  if (tokenizer_->is_special(token)) return {};
  if (position_ == TextPosition::kStart) {
    held_ += tokenizer_->decode(std::span(&token, 1), SpecialOutput::kSkip, TextPosition::kStart);
    if (!tokenizer_->token_bytes(token).empty()) position_ = TextPosition::kContinuation;
  } else {
    held_ += tokenizer_->token_bytes(token);
  }
  std::string out;
  std::string_view rest = held_;
  while (!rest.empty()) {
    const Utf8Part part = first_utf8_part(rest);
    if (part.status == Utf8Status::kIncomplete) break;
    out +=
        part.status == Utf8Status::kComplete ? rest.substr(0, part.bytes) : kReplacementCharacter;
    rest.remove_prefix(part.bytes);
  }
  held_.erase(0, held_.size() - rest.size());
  return out;
}

std::string Detokenizer::finish() {
  const bool dangling = !held_.empty();
  held_.clear();
  return dangling ? std::string(kReplacementCharacter) : std::string();
}

}  // namespace quern
