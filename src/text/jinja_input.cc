#include "text/jinja_input.h"

#include <fmt/format.h>

#include "text/jinja_text.h"

namespace quern::jinja {
namespace {

constexpr size_t kMaxTextBytes = size_t{1} << 30;

Result<Value> message_text(Runtime& runtime, const std::string& text, std::string_view name) {
  if (text.size() > kMaxTextBytes) {
    return template_error(fmt::format("{}: a text has {} bytes, at most {} are supported", name,
                                      text.size(), kMaxTextBytes));
  }
  if (find_invalid_utf8(text) != std::string_view::npos) {
    return template_error(fmt::format("{}: a text is not valid UTF-8", name));
  }
  Heap& heap = runtime.heap();
  Str str{text, {}, code_points(text)};
  if (!text.empty()) {
    str.marks = {heap.make(MarkRange{0, static_cast<uint32_t>(text.size())}), 1};
  }
  return Value::from(heap.make(str));
}

Result<Value> list_from(Runtime& runtime, const OrderedJson& json, std::string_view name) {
  const auto items = QUERN_TRY(runtime.heap().make_array<Value>(json.size()));
  size_t i = 0;
  for (const OrderedJson& element : json) items[i++] = QUERN_TRY(from_json(runtime, element, name));
  return runtime.sequence_of(Kind::kList, items);
}

Result<Value> dict_from(Runtime& runtime, const OrderedJson& json, std::string_view name) {
  const auto pairs = QUERN_TRY(runtime.heap().make_array<Pair>(json.size()));
  size_t i = 0;
  for (const auto& [key, value] : json.items()) {
    pairs[i].key = QUERN_TRY(message_text(runtime, key, name));
    pairs[i++].value = QUERN_TRY(from_json(runtime, value, name));
  }
  return Value::from(Kind::kDict, runtime.heap().make(Dict{pairs, pairs.size()}));
}

}  // namespace

Result<Value> from_json(Runtime& runtime, const OrderedJson& json, std::string_view name) {
  const Runtime::Nesting nesting(runtime);
  QUERN_TRY(nesting.entered());
  QUERN_TRY(runtime.step());
  switch (json.type()) {
    case OrderedJson::value_t::null:
      return Value::none();
    case OrderedJson::value_t::boolean:
      return Value::from(json.get<bool>());
    case OrderedJson::value_t::number_integer:
      return Value::from(json.get<int64_t>());
    case OrderedJson::value_t::number_unsigned: {
      const auto number = json.get<uint64_t>();
      if (number > INT64_MAX) return Value::from(static_cast<double>(number));
      return Value::from(static_cast<int64_t>(number));
    }
    case OrderedJson::value_t::number_float:
      return Value::from(json.get<double>());
    case OrderedJson::value_t::string:
      return message_text(runtime, json.get_ref<const std::string&>(), name);
    case OrderedJson::value_t::array:
      return list_from(runtime, json, name);
    case OrderedJson::value_t::object:
      return dict_from(runtime, json, name);
    default:
      break;
  }
  return template_error(fmt::format("{}: binary JSON values are not supported", name));
}

}  // namespace quern::jinja
