#include "base/json.h"

#include <fmt/format.h>

namespace quern {
namespace {

constexpr size_t kMaxShownValue = 80;

std::string shown(const Json& value) {
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() <= kMaxShownValue) return text;
  size_t end = kMaxShownValue;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80)
    --end;  // whole code points
  return text.substr(0, end) + "...";
}

// The parser quotes the bytes before an error, which may be any: messages stay valid UTF-8.
std::string ascii(std::string text) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) >= 0x80) c = '?';
  }
  return text;
}

// Builds the value as nlohmann's own callback parser does, but refuses deep nesting before the
// recursion of later visitors (and the destructor) could meet it.
class DepthCheck : public nlohmann::json_sax<Json> {
 public:
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool key(string_t&) override { return true; }
  bool start_object(size_t) override { return enter(); }
  bool end_object() override { return leave(); }
  bool start_array(size_t) override { return enter(); }
  bool end_array() override { return leave(); }

  bool parse_error(size_t position, const std::string&, const Json::exception& e) override {
    error_ = fmt::format("not valid JSON at byte {}: {}", position, ascii(e.what()));
    return false;
  }

  const std::string& error() const { return error_; }

 private:
  bool enter() {
    if (++depth_ <= kMaxJsonDepth) return true;
    error_ = fmt::format("nested deeper than {} levels", kMaxJsonDepth);
    return false;
  }

  bool leave() {
    --depth_;
    return true;
  }

  int depth_ = 0;
  std::string error_;
};

}  // namespace

Result<Json> parse_json(std::string_view text, std::string_view source) {
  DepthCheck check;
  if (!Json::sax_parse(text, &check)) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{}: {}", source, check.error())};
  }
  return Json::parse(text, nullptr, false);
}

const Json* JsonObject::find(std::string_view key) const {
  const auto it = value_->find(key);
  return it == value_->end() || it->is_null() ? nullptr : &*it;
}

Error JsonObject::wrong(std::string_view key,
                        const Json& found,
                        const std::string& expected) const {
  return {ErrorCode::kInvalidArgument,
          fmt::format("{}: \"{}\" is {}; expected {}", source_, key, shown(found), expected)};
}

Error JsonObject::missing(std::string_view key) const {
  return {ErrorCode::kInvalidArgument, fmt::format("{}: \"{}\" is missing", source_, key)};
}

Result<int64_t> JsonObject::integer(std::string_view key,
                                    std::optional<int64_t> fallback,
                                    int64_t min,
                                    int64_t max) const {
  const Json* found = find(key);
  if (found == nullptr) {
    if (fallback) return *fallback;
    return missing(key);
  }
  const std::string expected = fmt::format("an integer from {} to {}", min, max);
  if (!found->is_number_integer()) return wrong(key, *found, expected);
  if (found->is_number_unsigned() && found->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) {
    return wrong(key, *found, expected);
  }
  const auto value = found->get<int64_t>();
  if (value < min || value > max) return wrong(key, *found, expected);
  return value;
}

Result<double> JsonObject::number(std::string_view key, std::optional<double> fallback) const {
  const Json* found = find(key);
  if (found == nullptr) {
    if (fallback) return *fallback;
    return missing(key);
  }
  if (!found->is_number()) return wrong(key, *found, "a number");
  return found->get<double>();
}

Result<bool> JsonObject::boolean(std::string_view key, std::optional<bool> fallback) const {
  const Json* found = find(key);
  if (found == nullptr) {
    if (fallback) return *fallback;
    return missing(key);
  }
  if (!found->is_boolean()) return wrong(key, *found, "true or false");
  return found->get<bool>();
}

Result<std::string> JsonObject::string(std::string_view key,
                                       std::optional<std::string> fallback) const {
  const Json* found = find(key);
  if (found == nullptr) {
    if (fallback) return *std::move(fallback);
    return missing(key);
  }
  if (!found->is_string()) return wrong(key, *found, "a string");
  return found->get<std::string>();
}

}  // namespace quern
