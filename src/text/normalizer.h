// The "normalizer" of a tokenizer.json: rewrites a text before it is split.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace quern {

inline constexpr size_t kMaxPipelineSteps = 64;  // of one normalizer, pretokenizer or decoder

// One step. Text in and out is valid UTF-8. Immutable.
class NormalizerStep {
 public:
  NormalizerStep() = default;
  NormalizerStep(const NormalizerStep&) = delete;
  NormalizerStep& operator=(const NormalizerStep&) = delete;
  virtual ~NormalizerStep() = default;

  virtual void apply(std::string& text) const = 0;
};

class Normalizer {
 public:
  // From the value of "normalizer"; null is the identity. Errors: kUnsupported for an unknown type
  // (the known ones are listed), kInvalidArgument for a malformed field.
  static Result<Normalizer> from_json(const Json& value, const std::string& source);

  void apply(std::string& text) const {
    for (const auto& step : steps_) step->apply(text);
  }

  bool identity() const { return steps_.empty(); }

 private:
  std::vector<std::unique_ptr<const NormalizerStep>> steps_;
};

}  // namespace quern
