// The "decoder" of a tokenizer.json: what bytes each token stands for.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace quern {

// One step on the string of one token. Immutable.
class TokenDecoderStep {
 public:
  TokenDecoderStep() = default;
  TokenDecoderStep(const TokenDecoderStep&) = delete;
  TokenDecoderStep& operator=(const TokenDecoderStep&) = delete;
  virtual ~TokenDecoderStep() = default;

  // `token` is valid UTF-8 unless a former step made bytes of it.
  virtual void apply(std::string& token) const = 0;
};

// Decoding is a function of each token alone, except at the start of a text.
class TokenDecoder {
 public:
  // From the value of "decoder"; null leaves tokens as they are. Errors: kUnsupported for an
  // unknown type or a step that needs the whole text, kInvalidArgument for a malformed field.
  static Result<TokenDecoder> from_json(const Json& value, const std::string& source);

  // The bytes that `token` stands for within a text.
  std::string bytes(std::string_view token) const;

  // `text`, whose first token with bytes has `first_bytes` of them, as it reads at the start.
  std::string_view strip_start(std::string_view text, size_t first_bytes) const;

  // Whether strip_start changes anything.
  bool strips_start() const { return !start_strip_.empty(); }

 private:
  friend class TokenDecoderBuilder;

  std::vector<std::unique_ptr<const TokenDecoderStep>> steps_;
  std::string start_strip_;     // the character taken off the start of a text
  size_t start_strip_max_ = 0;  // how many of them; 0: all that the first token begins with
};

}  // namespace quern
