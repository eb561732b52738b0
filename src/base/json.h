// JSON as it comes from files and requests: parsing with a depth limit, and typed field access
// whose errors name the file, the field and the value.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "base/result.h"

namespace quern {

using Json = nlohmann::json;

inline constexpr int kMaxJsonDepth = 64;

// Parses `text`; `source` names it in errors ("config.json"). Duplicate keys: the last one wins.
// Errors: kInvalidArgument for anything that is not one JSON value nested at most kMaxJsonDepth
// deep.
Result<Json> parse_json(std::string_view text, std::string_view source);

// A JSON object with the name of where it came from. Borrows the object.
class JsonObject {
 public:
  // Requires value.is_object().
  JsonObject(const Json& value, std::string source) : value_(&value), source_(std::move(source)) {}

  const Json& json() const { return *value_; }

  const std::string& source() const { return source_; }

  // The member or nullptr when it is absent or null.
  const Json* find(std::string_view key) const;

  // Each returns `fallback` (or an error without one) when the key is absent or null, and
  // kInvalidArgument when it is there with another type or outside [min, max].
  Result<int64_t> integer(std::string_view key,
                          std::optional<int64_t> fallback = std::nullopt,
                          int64_t min = 0,
                          int64_t max = int64_t{1} << 40) const;
  Result<double> number(std::string_view key, std::optional<double> fallback = std::nullopt) const;
  Result<bool> boolean(std::string_view key, std::optional<bool> fallback = std::nullopt) const;
  Result<std::string> string(std::string_view key,
                             std::optional<std::string> fallback = std::nullopt) const;

 private:
  Error wrong(std::string_view key, const Json& found, const std::string& expected) const;
  Error missing(std::string_view key) const;

  const Json* value_;
  std::string source_;
};

}  // namespace quern
