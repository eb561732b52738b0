// The "post_processor" of a tokenizer.json: the ids that stand around a single text.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace quern {

struct TextTemplate {
  std::vector<int32_t> before, after;

  // From the value of "post_processor"; null adds nothing. Errors: kUnsupported for an unknown type
  // (the known ones are listed), kInvalidArgument for a malformed field or a template without
  // exactly one text.
  static Result<TextTemplate> from_json(const Json& value, const std::string& source);
};

}  // namespace quern
