#include "text/jinja_json.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "text/jinja_operators.h"
#include "text/jinja_repr.h"
#include "text/jinja_text.h"

namespace quern::jinja {
namespace {

std::string escaped(char32_t c) {
  switch (c) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    case '\b':
      return "\\b";
    case '\f':
      return "\\f";
    default:
      break;
  }
  auto number = static_cast<uint32_t>(c);
  if (number < 0x10000) return fmt::format("\\u{:04x}", number);
  number -= 0x10000;
  return fmt::format("\\u{:04x}\\u{:04x}", 0xd800 + (number >> 10), 0xdc00 + (number & 0x3ff));
}

class JsonWriter {
 public:
  explicit JsonWriter(Runtime& runtime) : runtime_(runtime), out_(runtime) {}

  Result<Unit> configure(std::span<const Value, 5> arguments);
  Result<Unit> write(const Value& value);

  Result<Value> finish() { return out_.finish(); }

 private:
  void write_string(const Str& text);
  Result<Unit> write_items(std::span<const Value> items);
  Result<Unit> write_dict(const Dict& dict);
  Result<Unit> write_key(const Value& key);
  void new_line();

  static std::string number(const Value& value) {
    if (value.is(Kind::kBool)) return value.boolean ? "true" : "false";
    if (value.is(Kind::kInt)) return std::to_string(value.integer);
    if (std::isnan(value.real)) return "NaN";
    if (std::isinf(value.real)) return value.real > 0 ? "Infinity" : "-Infinity";
    return float_repr(value.real);
  }

  Runtime& runtime_;
  TextBuilder out_;
  bool ensure_ascii_ = false;
  bool sort_keys_ = false;
  bool indented_ = false;
  Str indent_;
  Str item_separator_{", ", {}, 2};
  Str key_separator_{": ", {}, 2};
  int64_t level_ = 0;
};

Result<Unit> JsonWriter::configure(std::span<const Value, 5> arguments) {
  const auto& [ignored, ensure_ascii, indent, separators, sort_keys] =
      std::array<Value, 5>{arguments[0], arguments[1], arguments[2], arguments[3], arguments[4]};
  ensure_ascii_ = truthy(ensure_ascii);
  sort_keys_ = truthy(sort_keys);
  if (indent.given() && !indent.is(Kind::kNone)) {
    indented_ = true;
    item_separator_ = Str{",", {}, 1};
    if (indent.is(Kind::kString)) {
      indent_ = *indent.string;
    } else if (indent.is_integer()) {
      static constexpr std::string_view kSpaces = "                                ";
      const int64_t width = std::clamp<int64_t>(indent.as_integer(), 0, kSpaces.size());
      indent_ =
          Str{kSpaces.substr(0, static_cast<size_t>(width)), {}, static_cast<uint32_t>(width)};
    } else {
      return template_error("tojson: indent must be an integer or a string");
    }
  }
  if (separators.given() && !separators.is(Kind::kNone)) {
    const bool pair = (separators.is(Kind::kTuple) || separators.is(Kind::kList)) &&
                      separators.sequence->items.size() == 2 &&
                      separators.sequence->items[0].is(Kind::kString) &&
                      separators.sequence->items[1].is(Kind::kString);
    if (!pair) return template_error("tojson: separators must be two strings");
    item_separator_ = *separators.sequence->items[0].string;
    key_separator_ = *separators.sequence->items[1].string;
  }
  return Unit{};
}

void JsonWriter::new_line() {
  if (!indented_) return;
  out_.append("\n");
  for (int64_t i = 0; i < level_ && !out_.failed(); ++i) out_.append(indent_);
}

void JsonWriter::write_string(const Str& text) {
  out_.append("\"");
  size_t plain = 0;  // start of what is copied as it is
  for (size_t i = 0; i < text.bytes.size();) {
    const size_t begin = i;
    const char32_t c = next_code_point(text.bytes, i);
    if (c >= 0x20 && c != '"' && c != '\\' && (c < 0x7f || !ensure_ascii_)) continue;
    out_.append(text, plain, begin);
    out_.append_for(escaped(c), text, begin);
    plain = i;
  }
  out_.append(text, plain, text.bytes.size());
  out_.append("\"");
}

Result<Unit> JsonWriter::write_items(std::span<const Value> items) {
  if (items.empty()) {
    out_.append("[]");
    return Unit{};
  }
  out_.append("[");
  ++level_;
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out_.append(item_separator_);
    new_line();
    QUERN_TRY(write(items[i]));
  }
  --level_;
  new_line();
  out_.append("]");
  return Unit{};
}

Result<Unit> JsonWriter::write_key(const Value& key) {
  if (key.is(Kind::kString)) {
    write_string(*key.string);
  } else if (key.is(Kind::kNone)) {
    out_.append("\"null\"");
  } else if (key.is_number()) {
    out_.append("\"" + number(key) + "\"");
  } else {
    return template_error(fmt::format("tojson: '{}' cannot be a key", type_name(key)));
  }
  return Unit{};
}

Result<Unit> JsonWriter::write_dict(const Dict& dict) {
  if (dict.pairs.empty()) {
    out_.append("{}");
    return Unit{};
  }
  std::vector<Keyed> sorted;
  for (const Pair& pair : dict.pairs) sorted.push_back({{pair.key}, pair.value});
  if (sort_keys_) QUERN_TRY(sort_keyed(runtime_, sorted));
  out_.append("{");
  ++level_;
  bool first = true;
  for (const Keyed& pair : sorted) {
    if (!first) out_.append(item_separator_);
    first = false;
    new_line();
    QUERN_TRY(write_key(pair.keys.front()));
    out_.append(key_separator_);
    QUERN_TRY(write(pair.value));
  }
  --level_;
  new_line();
  out_.append("}");
  return Unit{};
}

Result<Unit> JsonWriter::write(const Value& value) {
  const Runtime::Nesting nesting(runtime_);
  QUERN_TRY(nesting.entered());
  QUERN_TRY(runtime_.step(1 + level_));
  switch (value.kind) {
    case Kind::kNone:
      out_.append("null");
      return Unit{};
    case Kind::kBool:
    case Kind::kInt:
    case Kind::kFloat:
      out_.append(number(value));
      return Unit{};
    case Kind::kString:
      QUERN_TRY(runtime_.read(value.string->bytes.size()));
      write_string(*value.string);
      return Unit{};
    case Kind::kList:
    case Kind::kTuple:
      return write_items(value.sequence->items);
    case Kind::kDict:
      return write_dict(*value.dict);
    default:
      break;
  }
  return template_error(fmt::format("tojson: JSON has no '{}'", type_name(value)));
}

}  // namespace

Result<Value> filter_tojson(Runtime& runtime, const Call& call) {
  const auto arguments =
      QUERN_TRY(call.bind({"x", "ensure_ascii", "indent", "separators", "sort_keys"}, 1));
  JsonWriter writer(runtime);
  QUERN_TRY(writer.configure(arguments));
  QUERN_TRY(writer.write(arguments[0]));
  return writer.finish();
}

}  // namespace quern::jinja
