// What the readers of normalizers, pretokenizers and decoders share: flattening of "Sequence" and
// the fields that occur in several of them.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "text/pretokenizer_expression.h"

namespace quern {

// The steps of `value` in order: itself, or the members (`list`) of nested "Sequence" objects; none
// for null. Each is an object with a string "type". Errors: kInvalidArgument naming `source`.
Result<std::vector<const Json*>> flatten_sequence(const Json& value,
                                                  std::string_view list,
                                                  const std::string& source);

// The error for a type that is not known.
Error unknown_type(const std::string& source,
                   std::string_view type,
                   std::span<const std::string_view> known);

// {"String": ...} or {"Regex": ...}: exactly one of the two is set. Requires from_json's object.
struct TextPattern {
  std::string literal;
  std::optional<PretokenizerExpression> expression;
};

Result<TextPattern> read_pattern(const JsonObject& object);

// A string of exactly one code point. Errors: kInvalidArgument.
Result<std::string> read_character(const JsonObject& object,
                                   std::string_view key,
                                   std::optional<std::string> fallback = std::nullopt);

// `text` with every match of the pattern replaced by `content`. An empty literal matches nothing.
std::string replace_matches(std::string_view text,
                            const TextPattern& pattern,
                            std::string_view content);

}  // namespace quern
