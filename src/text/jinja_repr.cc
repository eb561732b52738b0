#include "text/jinja_repr.h"

#include <charconv>
#include <cmath>

#include <fmt/format.h>
#include <utf8proc.h>

#include "text/jinja_callables.h"

namespace quern::jinja {
namespace {

bool printable(char32_t code_point) {
  if (code_point < 0x80) return code_point >= 0x20 && code_point != 0x7f;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code_point))) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return false;
    default:
      return true;
  }
}

std::string escaped(char32_t c, char quote) {
  if (c == static_cast<unsigned char>(quote) || c == '\\') {
    return std::string("\\") + static_cast<char>(c);
  }
  switch (c) {
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    default:
      break;
  }
  const auto number = static_cast<uint32_t>(c);
  if (number < 0x100) return fmt::format("\\x{:02x}", number);
  return number < 0x10000 ? fmt::format("\\u{:04x}", number) : fmt::format("\\U{:08x}", number);
}

void append_quoted(TextBuilder& out, const Str& text) {
  const bool single = text.bytes.find('\'') != std::string_view::npos;
  const char quote = single && text.bytes.find('"') == std::string_view::npos ? '"' : '\'';
  const std::string_view edge(&quote, 1);
  out.append(edge);
  size_t plain = 0;  // start of what is copied as it is
  for (size_t i = 0; i < text.bytes.size();) {
    const size_t begin = i;
    const char32_t c = next_code_point(text.bytes, i);
    if (printable(c) && c != static_cast<unsigned char>(quote) && c != '\\') continue;
    out.append(text, plain, begin);
    out.append_for(escaped(c, quote), text, begin);
    plain = i;
  }
  out.append(text, plain, text.bytes.size());
  out.append(edge);
}

Result<Unit> append_items(Runtime& runtime, TextBuilder& out, const Value& value) {
  const bool tuple = value.is(Kind::kTuple);
  const auto items = value.sequence->items;
  out.append(tuple ? "(" : "[");
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out.append(", ");
    QUERN_TRY(append_repr(runtime, out, items[i]));
  }
  if (tuple && items.size() == 1) out.append(",");
  out.append(tuple ? ")" : "]");
  return Unit{};
}

Result<Unit> append_dict(Runtime& runtime, TextBuilder& out, const Dict& dict) {
  out.append("{");
  bool first = true;
  for (const Pair& pair : dict.pairs) {
    if (!first) out.append(", ");
    first = false;
    QUERN_TRY(append_repr(runtime, out, pair.key));
    out.append(": ");
    QUERN_TRY(append_repr(runtime, out, pair.value));
  }
  out.append("}");
  return Unit{};
}

void append_range(TextBuilder& out, std::span<const Value> items) {
  if (items.empty()) return out.append("range(0, 0)");
  const int64_t start = items.front().integer;
  const int64_t step = items.size() > 1 ? items[1].integer - start : 1;
  const int64_t stop = items.back().integer + (step > 0 ? 1 : -1);
  out.append(step == 1 ? fmt::format("range({}, {})", start, stop)
                       : fmt::format("range({}, {}, {})", start, stop, step));
}

}  // namespace

std::string float_repr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[40];
  const auto end =
      std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific);
  const std::string_view shortest(buffer, static_cast<size_t>(end.ptr - buffer));
  const size_t e = shortest.find('e');
  int exponent = 0;
  const size_t sign = shortest[e + 1] == '+' ? 2 : 1;
  std::from_chars(shortest.data() + e + sign, end.ptr, exponent);
  if (exponent < -4 || exponent >= 16) {
    return fmt::format("{}e{}{:02}", shortest.substr(0, e), exponent < 0 ? '-' : '+',
                       std::abs(exponent));
  }
  const auto fixed =
      std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::fixed);
  std::string text(buffer, fixed.ptr);
  if (text.find('.') == std::string::npos) text += ".0";
  return text;
}

Result<Unit> append_str(Runtime& runtime, TextBuilder& out, const Value& value) {
  if (value.is(Kind::kString)) {
    QUERN_TRY(runtime.read(value.string->bytes.size()));
    out.append(*value.string);
    return Unit{};
  }
  if (value.is(Kind::kUndefined)) return Unit{};
  return append_repr(runtime, out, value);
}

Result<Unit> append_repr(Runtime& runtime, TextBuilder& out, const Value& value) {
  const Runtime::Nesting nesting(runtime);
  QUERN_TRY(nesting.entered());
  QUERN_TRY(runtime.step());
  switch (value.kind) {
    case Kind::kNone:
      out.append("None");
      break;
    case Kind::kBool:
      out.append(value.boolean ? "True" : "False");
      break;
    case Kind::kInt:
      out.append(std::to_string(value.integer));
      break;
    case Kind::kFloat:
      out.append(float_repr(value.real));
      break;
    case Kind::kString:
      QUERN_TRY(runtime.read(value.string->bytes.size()));
      append_quoted(out, *value.string);
      break;
    case Kind::kList:
    case Kind::kTuple:
      return append_items(runtime, out, value);
    case Kind::kDict:
      return append_dict(runtime, out, *value.dict);
    case Kind::kRange:
      append_range(out, value.sequence->items);
      break;
    case Kind::kView:
      out.append(value.sequence->name);
      out.append("(");
      QUERN_TRY(append_items(runtime, out, Value::from(Kind::kList, value.sequence)));
      out.append(")");
      break;
    case Kind::kNamespace:
      out.append("<Namespace ");
      QUERN_TRY(append_dict(runtime, out, *value.dict));
      out.append(">");
      break;
    case Kind::kMacro:
      out.append(fmt::format("<Macro '{}'>", value.macro->name()));
      break;
    case Kind::kUndefined:
      out.append("Undefined");
      break;
    default:
      out.append(fmt::format("<{} object>", type_name(value)));
      break;
  }
  return Unit{};
}

Result<Value> to_str(Runtime& runtime, const Value& value) {
  if (value.is(Kind::kString)) return value;
  TextBuilder out(runtime);
  QUERN_TRY(append_str(runtime, out, value));
  return out.finish();
}

}  // namespace quern::jinja
