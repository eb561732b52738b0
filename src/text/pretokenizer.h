// The "pre_tokenizer" of a tokenizer.json: splits a text into the words that are encoded one by
// one.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace quern {

struct TextRange {
  size_t begin = 0;
  size_t end = 0;

  friend bool operator==(const TextRange&, const TextRange&) = default;
};

// A text and its words so far: ranges in order that do not overlap, none empty.
struct Words {
  std::string text;
  std::vector<TextRange> ranges;
  bool first_is_start = false;  // the first range begins where the whole text begins

  std::string_view word(const TextRange& range) const {
    return std::string_view(text).substr(range.begin, range.end - range.begin);
  }
};

enum class SplitBehavior {
  kRemoved,
  kIsolated,
  kMergedWithPrevious,
  kMergedWithNext,
  kContiguous,
};

// One step. Immutable.
class PretokenizerStep {
 public:
  PretokenizerStep() = default;
  PretokenizerStep(const PretokenizerStep&) = delete;
  PretokenizerStep& operator=(const PretokenizerStep&) = delete;
  virtual ~PretokenizerStep() = default;

  virtual void apply(Words& words) const = 0;
};

// How the bytes of words reach the model.
enum class ByteMapping {
  kInPlace,   // words are as the vocabulary writes them
  kDeferred,  // words are raw bytes: ByteLevel comes last, and the model looks bytes up itself
};

class Pretokenizer {
 public:
  // From the value of "pre_tokenizer"; null leaves a text whole. With kDeferred, a last step
  // "ByteLevel" leaves the bytes as they are. Errors: kUnsupported for an unknown type (the known
  // ones are listed), kInvalidArgument for a malformed field.
  static Result<Pretokenizer> from_json(const Json& value,
                                        const std::string& source,
                                        ByteMapping mapping);

  // Whether the last step of `value` is "ByteLevel". Errors: as from_json for malformed sequences.
  static Result<bool> ends_with_byte_level(const Json& value, const std::string& source);

  void apply(Words& words) const {
    for (const auto& step : steps_) step->apply(words);
  }

  bool identity() const { return steps_.empty(); }

 private:
  std::vector<std::unique_ptr<const PretokenizerStep>> steps_;
};

}  // namespace quern
