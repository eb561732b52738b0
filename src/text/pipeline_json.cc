#include "text/pipeline_json.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "text/normalizer.h"
#include "text/unicode.h"

namespace quern {
namespace {

Error malformed(const std::string& source, const std::string& what) {
  return {ErrorCode::kInvalidArgument, fmt::format("{}: {}", source, what)};
}

Result<Unit> flatten_into(const Json& value,
                          std::string_view list,
                          const std::string& source,
                          std::vector<const Json*>& steps) {
  if (!value.is_object()) {
    return malformed(source,
                     fmt::format("is {}; an object with a \"type\" is needed", value.type_name()));
  }
  const JsonObject object(value, source);
  const std::string type = QUERN_TRY(object.string("type"));
  if (type != "Sequence") {
    if (steps.size() >= kMaxPipelineSteps)
      return malformed(source, fmt::format("has more than {} steps", kMaxPipelineSteps));
    steps.push_back(&value);
    return Unit{};
  }
  const Json* members = object.find(list);
  if (members == nullptr || !members->is_array())
    return malformed(source, fmt::format("Sequence without a list \"{}\"", list));
  // The recursion is bounded by kMaxJsonDepth.
  for (const Json& member : *members) QUERN_TRY(flatten_into(member, list, source, steps));
  return Unit{};
}

}  // namespace

Result<std::vector<const Json*>> flatten_sequence(const Json& value,
                                                  std::string_view list,
                                                  const std::string& source) {
  std::vector<const Json*> steps;
  if (!value.is_null()) QUERN_TRY(flatten_into(value, list, source, steps));
  return steps;
}

Error unknown_type(const std::string& source,
                   std::string_view type,
                   std::span<const std::string_view> known) {
  return {ErrorCode::kUnsupported, fmt::format("{}: type \"{}\" is not known; known are {}", source,
                                               type, fmt::join(known, ", "))};
}

Result<TextPattern> read_pattern(const JsonObject& object) {
  const std::string source = object.source() + " pattern";
  const Json* value = object.find("pattern");
  if (value == nullptr || !value->is_object() || value->size() != 1)
    return malformed(source, "needs to be {\"String\": ...} or {\"Regex\": ...}");
  const JsonObject pattern(*value, source);
  TextPattern result;
  if (value->contains("Regex")) {
    const std::string regex = QUERN_TRY(pattern.string("Regex"));
    result.expression = QUERN_TRY(PretokenizerExpression::compile(regex, source));
  } else {
    result.literal = QUERN_TRY(pattern.string("String"));
  }
  return result;
}

Result<std::string> read_character(const JsonObject& object,
                                   std::string_view key,
                                   std::optional<std::string> fallback) {
  std::string text = QUERN_TRY(object.string(key, std::move(fallback)));
  if (text.empty() || decode_code_point(text).bytes != text.size()) {
    return malformed(object.source(),
                     fmt::format("\"{}\" is \"{}\"; one character is needed", key, text));
  }
  return text;
}

std::string replace_matches(std::string_view text,
                            const TextPattern& pattern,
                            std::string_view content) {
  std::string out;
  size_t copied = 0;
  const auto replace = [&](size_t begin, size_t end) {
    out += text.substr(copied, begin - copied);
    out += content;
    copied = end;
  };
  if (pattern.expression) {
    pattern.expression->for_each_match(text, replace);
  } else if (!pattern.literal.empty()) {
    for (size_t at = text.find(pattern.literal); at != std::string_view::npos;
         at = text.find(pattern.literal, at + pattern.literal.size())) {
      replace(at, at + pattern.literal.size());
    }
  }
  out += text.substr(copied);
  return out;
}

}  // namespace quern
