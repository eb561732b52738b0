#include "serve/api_json.h"

#include <unordered_set>
#include <vector>

#include <fmt/format.h>

namespace quern {
namespace {

constexpr size_t kMaxShownBytes = 80;

// The parser quotes the bytes before an error, which may be any: messages stay valid UTF-8.
std::string ascii(std::string text) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) >= 0x80) c = '?';
  }
  return text;
}

// Builds the value from the inside out, so that no step searches an object's keys one by one: the
// time is linear in the body whatever it holds.
class Builder : public nlohmann::json_sax<OrderedJson> {
 public:
  bool null() override { return add(nullptr); }

  bool boolean(bool value) override { return add(value); }

  bool number_integer(number_integer_t value) override { return add(value); }

  bool number_unsigned(number_unsigned_t value) override { return add(value); }

  bool number_float(number_float_t value, const string_t&) override { return add(value); }

  bool string(string_t& value) override { return add(std::move(value)); }

  bool binary(binary_t&) override { return fail("holds binary data"); }

  bool key(string_t& value) override {
    Open& object = open_.back();
    if (!object.keys.insert(value).second) {
      return fail(fmt::format("has the key {} twice in one object", shown(value)));
    }
    object.key = std::move(value);
    return true;
  }

  bool start_object(size_t) override { return open(OrderedJson::object()); }

  bool end_object() override { return close(); }

  bool start_array(size_t) override { return open(OrderedJson::array()); }

  bool end_array() override { return close(); }

  bool parse_error(size_t position,
                   const std::string&,
                   const nlohmann::detail::exception& e) override {
    return fail(fmt::format("is not valid JSON at byte {}: {}", position, ascii(e.what())));
  }

  OrderedJson& result() { return result_; }

  const std::string& error() const { return error_; }

 private:
  struct Open {
    OrderedJson value;
    std::string key;  // of the member that comes next
    std::unordered_set<std::string> keys;
  };

  bool fail(std::string error) {
    if (error_.empty()) error_ = std::move(error);
    return false;
  }

  bool add(OrderedJson value) {
    if (++values_ > kMaxBodyValues) {
      return fail(fmt::format("has more than {} values", kMaxBodyValues));
    }
    if (open_.empty()) {
      result_ = std::move(value);
      return true;
    }
    Open& outer = open_.back();
    if (outer.value.is_array()) {
      outer.value.push_back(std::move(value));
    } else {
      outer.value.get_ref<OrderedJson::object_t&>().emplace_back(std::move(outer.key),
                                                                 std::move(value));
    }
    return true;
  }

  bool open(OrderedJson empty) {
    if (static_cast<int>(open_.size()) == kMaxBodyDepth) {
      return fail(fmt::format("is nested deeper than {} levels", kMaxBodyDepth));
    }
    open_.push_back({std::move(empty), {}, {}});
    return true;
  }

  bool close() {
    OrderedJson value = std::move(open_.back().value);
    open_.pop_back();
    return add(std::move(value));
  }

  std::vector<Open> open_;
  OrderedJson result_;
  int64_t values_ = 0;
  std::string error_;
};

}  // namespace

ApiResult<OrderedJson> parse_body(std::string_view body) {
  Builder builder;
  if (!OrderedJson::sax_parse(body, &builder)) {
    return invalid_request({}, "the body " + builder.error(), "invalid_json");
  }
  if (!builder.result().is_object()) {
    return invalid_request(
        {}, fmt::format("the body is {}; it must be a JSON object", shown(builder.result())));
  }
  return std::move(builder.result());
}

std::string dump(const OrderedJson& value) {
  return value.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

void append_json_string(std::string_view text, std::string& out) {
  out += dump(OrderedJson(std::string(text)));
}

std::string shown(const OrderedJson& value) {
  std::string text = dump(value);
  if (text.size() <= kMaxShownBytes) return text;
  size_t end = kMaxShownBytes;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  return text.substr(0, end) + "...";
}

const OrderedJson* find(const OrderedJson& object, std::string_view key) {
  const auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

std::string text_or(const OrderedJson& object, std::string_view key, std::string_view fallback) {
  const OrderedJson* found = find(object, key);
  return found == nullptr ? std::string(fallback) : found->get<std::string>();
}

int64_t integer_or(const OrderedJson& object, std::string_view key, int64_t fallback) {
  const OrderedJson* found = find(object, key);
  return found == nullptr ? fallback : as_integer(*found);
}

double number_or(const OrderedJson& object, std::string_view key, double fallback) {
  const OrderedJson* found = find(object, key);
  return found == nullptr ? fallback : found->get<double>();
}

bool is_true(const OrderedJson& object, std::string_view key) {
  const OrderedJson* found = find(object, key);
  return found != nullptr && found->is_boolean() && found->get<bool>();
}

int64_t as_integer(const OrderedJson& number) {
  return number.is_number_float() ? static_cast<int64_t>(number.get<double>())
                                  : number.get<int64_t>();
}

}  // namespace quern
