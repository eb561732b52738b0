#include <algorithm>

#include <fmt/format.h>

#include "text/jinja_case.h"
#include "text/jinja_methods.h"
#include "text/jinja_methods_tables.h"
#include "text/jinja_operators.h"
#include "text/jinja_percent.h"
#include "text/jinja_repr.h"
#include "text/jinja_text.h"

namespace quern::jinja {
namespace {

const Str& self_of(const Call& call) { return *call.args[0].string; }

Result<const Str*> text_argument(const Call& call, const Value& value) {
  if (value.is(Kind::kString)) return value.string;
  return template_error(fmt::format("{}() takes a text, not '{}'", call.name, type_name(value)));
}

bool missing_or_none(const Value& value) { return !value.given() || value.is(Kind::kNone); }

// Offsets of the code points at the edge of `bytes`.
size_t last_code_point(std::string_view bytes) {
  size_t last = bytes.size() - 1;
  while (last > 0 && (static_cast<unsigned char>(bytes[last]) & 0xc0u) == 0x80u) --last;
  return last;
}

bool strips(std::string_view one, const Value& characters) {
  if (!characters.is(Kind::kString)) {
    size_t offset = 0;
    return is_space(next_code_point(one, offset));
  }
  return characters.string->bytes.find(one) != std::string_view::npos;  // aligned: UTF-8
}

Result<Value> strip_method(Runtime& runtime, const Call& call, Side side) {
  const auto a = QUERN_TRY(call.bind({"", ""}, 1));
  if (!missing_or_none(a[1])) QUERN_TRY(text_argument(call, a[1]));
  return strip(runtime, *a[0].string, a[1], side);
}

Result<Value> str_strip(Runtime& r, const Call& c) { return strip_method(r, c, Side::kBoth); }
Result<Value> str_lstrip(Runtime& r, const Call& c) { return strip_method(r, c, Side::kLeft); }
Result<Value> str_rstrip(Runtime& r, const Call& c) { return strip_method(r, c, Side::kRight); }

struct Cut {
  size_t begin, end;
};

// More pieces than this do not fit the memory limit: finding them stops, and text_list() refuses.
size_t most_cuts(Runtime& runtime) { return runtime.heap().room() / (sizeof(Str) + sizeof(Value)); }

// Where white space separates words, from the left; at most `limit` cuts when it is not negative.
std::vector<Cut> words(const Str& text, int64_t limit, size_t most) {
  std::vector<Cut> result;
  const std::string_view bytes = text.bytes;
  for (size_t at = 0; at < bytes.size() && result.size() <= most;) {
    size_t next = at;
    if (is_space(next_code_point(bytes, next))) {
      at = next;
      continue;
    }
    const size_t begin = at;
    if (limit >= 0 && static_cast<int64_t>(result.size()) == limit) {
      result.push_back({begin, bytes.size()});
      return result;
    }
    while (at < bytes.size()) {
      next = at;
      if (is_space(next_code_point(bytes, next))) break;
      at = next;
    }
    result.push_back({begin, at});
  }
  return result;
}

std::vector<Cut> words_from_right(const Str& text, int64_t limit, size_t most) {
  std::vector<Cut> all = words(text, -1, most);
  if (limit < 0 || static_cast<int64_t>(all.size()) <= limit + 1) return all;
  const auto kept = all.end() - limit;
  const Cut rest{0, std::prev(kept)->end};
  std::vector<Cut> result{rest};
  result.insert(result.end(), kept, all.end());
  return result;
}

std::vector<Cut> pieces(const Str& text, std::string_view separator, int64_t limit, size_t most) {
  std::vector<Cut> result;
  size_t begin = 0;
  while (result.size() <= most && (limit < 0 || static_cast<int64_t>(result.size()) < limit)) {
    const size_t found = find_bytes(text.bytes, separator, begin);
    if (found == std::string_view::npos) break;
    result.push_back({begin, found});
    begin = found + separator.size();
  }
  result.push_back({begin, text.bytes.size()});
  return result;
}

// The last occurrence within [0, end), or npos. The caller pays for the quadratic worst case.
size_t rfind_bytes(std::string_view bytes, std::string_view needle, size_t end) {
  return bytes.substr(0, end).rfind(needle);
}

Result<Unit> pay_for_rfind(Runtime& runtime, size_t haystack, size_t needle) {
  return runtime.step(1 +
                      static_cast<int64_t>(haystack / 32) * static_cast<int64_t>(1 + needle / 32));
}

Result<std::vector<Cut>> pieces_from_right(Runtime& runtime,
                                           const Str& text,
                                           std::string_view separator,
                                           int64_t limit) {
  if (limit < 0) limit = INT64_MAX;
  QUERN_TRY(pay_for_rfind(runtime, text.bytes.size(), separator.size()));
  std::vector<Cut> result;
  size_t end = text.bytes.size();
  const size_t most = most_cuts(runtime);
  while (result.size() <= most && static_cast<int64_t>(result.size()) < limit) {
    const size_t found = rfind_bytes(text.bytes, separator, end);
    if (found == std::string_view::npos) break;
    result.push_back({found + separator.size(), end});
    end = found;
  }
  result.push_back({0, end});
  std::reverse(result.begin(), result.end());
  return result;
}

Result<Value> text_list(Runtime& runtime, const Str& text, const std::vector<Cut>& cuts) {
  QUERN_TRY(runtime.step(static_cast<int64_t>(cuts.size())));
  if (cuts.size() > most_cuts(runtime)) return runtime.heap().limit_error();
  std::vector<Value> items;
  items.reserve(cuts.size());
  for (const Cut& cut : cuts) {
    items.push_back(slice_bytes(runtime, text, cut.begin, cut.end));
    if (runtime.heap().exceeded()) return runtime.heap().limit_error();
  }
  return runtime.sequence(Kind::kList, items);
}

enum class From { kLeft, kRight };

Result<Value> split_from(Runtime& runtime, const Call& call, From from) {
  const auto a = QUERN_TRY(call.bind({"", "sep", "maxsplit"}, 1));
  const Str& text = *a[0].string;
  const int64_t limit = QUERN_TRY(integer_argument(call, a[2], -1));
  QUERN_TRY(runtime.read(text.bytes.size()));
  const size_t most = most_cuts(runtime);
  if (missing_or_none(a[1])) {
    return text_list(
        runtime, text,
        from == From::kLeft ? words(text, limit, most) : words_from_right(text, limit, most));
  }
  const Str* separator = QUERN_TRY(text_argument(call, a[1]));
  if (separator->bytes.empty()) return template_error("split(): the separator is empty");
  if (from == From::kLeft) {
    return text_list(runtime, text, pieces(text, separator->bytes, limit, most));
  }
  return text_list(runtime, text,
                   QUERN_TRY(pieces_from_right(runtime, text, separator->bytes, limit)));
}

Result<Value> str_split(Runtime& r, const Call& c) { return split_from(r, c, From::kLeft); }
Result<Value> str_rsplit(Runtime& r, const Call& c) { return split_from(r, c, From::kRight); }

Result<Value> str_splitlines(Runtime& runtime, const Call& call) {
  const auto a = QUERN_TRY(call.bind({"", "keepends"}, 1));
  if (a[1].given() && truthy(a[1]))
    return template_error("splitlines(): keepends is not supported");
  return runtime.sequence(Kind::kList, QUERN_TRY(split_lines(runtime, *a[0].string)));
}

Result<Value> partition_at(Runtime& runtime, const Call& call, From from) {
  const auto a = QUERN_TRY(call.bind({"", ""}, 2));
  const Str& text = *a[0].string;
  const Str* separator = QUERN_TRY(text_argument(call, a[1]));
  if (separator->bytes.empty()) return template_error("partition(): the separator is empty");
  QUERN_TRY(
      pay_for_rfind(runtime, text.bytes.size(), from == From::kLeft ? 0 : separator->bytes.size()));
  const size_t found = from == From::kLeft
                           ? find_bytes(text.bytes, separator->bytes, 0)
                           : rfind_bytes(text.bytes, separator->bytes, text.bytes.size());
  const Value empty = slice_bytes(runtime, text, 0, 0);
  if (found == std::string_view::npos) {
    if (from == From::kLeft) return runtime.tuple({a[0], empty, empty});
    return runtime.tuple({empty, empty, a[0]});
  }
  const size_t behind = found + separator->bytes.size();
  return runtime.tuple({slice_bytes(runtime, text, 0, found), a[1],
                        slice_bytes(runtime, text, behind, text.bytes.size())});
}

Result<Value> str_partition(Runtime& r, const Call& c) { return partition_at(r, c, From::kLeft); }
Result<Value> str_rpartition(Runtime& r, const Call& c) { return partition_at(r, c, From::kRight); }

// The part of the text that optional start and end arguments (in code points) choose.
struct Window {
  size_t begin, end;  // bytes
  bool valid;         // start lies within the text
};

Result<Window> window(const Call& call, const Str& text, const Value& start, const Value& end) {
  const int64_t length = text.length;
  const auto bound = [&](const Value& v, int64_t fallback) -> Result<int64_t> {
    if (missing_or_none(v)) return fallback;
    const int64_t i = QUERN_TRY(integer_argument(call, v, 0));
    return i < 0 ? std::max<int64_t>(i + length, 0) : i;
  };
  const int64_t first = QUERN_TRY(bound(start, 0));
  const int64_t last = std::min(QUERN_TRY(bound(end, length)), length);
  if (first > last) return Window{0, 0, false};
  return Window{byte_offset(text, first), byte_offset(text, last), true};
}

Result<Value> affix(Runtime& runtime, const Call& call, From side) {
  const auto a = QUERN_TRY(call.bind({"", "", "", ""}, 2));
  const Str& text = *a[0].string;
  const Window part = QUERN_TRY(window(call, text, a[2], a[3]));
  const std::string_view bytes = text.bytes.substr(part.begin, part.end - part.begin);
  std::vector<Value> wanted{a[1]};
  if (a[1].is(Kind::kTuple)) wanted = QUERN_TRY(elements(runtime, a[1]));
  for (const Value& one : wanted) {
    const Str* affix_text = QUERN_TRY(text_argument(call, one));
    QUERN_TRY(runtime.read(affix_text->bytes.size()));
    const bool found = side == From::kLeft ? bytes.starts_with(affix_text->bytes)
                                           : bytes.ends_with(affix_text->bytes);
    if (part.valid && found) return Value::from(true);
  }
  return Value::from(false);
}

Result<Value> str_startswith(Runtime& r, const Call& c) { return affix(r, c, From::kLeft); }
Result<Value> str_endswith(Runtime& r, const Call& c) { return affix(r, c, From::kRight); }

// The position in code points, -1 when absent.
Result<int64_t> position(Runtime& runtime, const Call& call, From from) {
  const auto a = QUERN_TRY(call.bind({"", "", "", ""}, 2));
  const Str& text = *a[0].string;
  const Str* needle = QUERN_TRY(text_argument(call, a[1]));
  QUERN_TRY(
      pay_for_rfind(runtime, text.bytes.size(), from == From::kLeft ? 0 : needle->bytes.size()));
  const Window part = QUERN_TRY(window(call, text, a[2], a[3]));
  if (!part.valid) return int64_t{-1};
  const std::string_view bytes = text.bytes.substr(0, part.end);
  size_t found = std::string_view::npos;
  if (from == From::kLeft) {
    found = find_bytes(bytes, needle->bytes, part.begin);
  } else {
    found = bytes.rfind(needle->bytes);
    if (found != std::string_view::npos && found < part.begin) found = std::string_view::npos;
  }
  if (found == std::string_view::npos) return int64_t{-1};
  return int64_t{code_points(text.bytes.substr(0, found))};
}

Result<Value> found_position(Runtime& runtime, const Call& call, From from) {
  const int64_t found = QUERN_TRY(position(runtime, call, from));
  if (found < 0) return template_error("substring not found");
  return Value::from(found);
}

Result<Value> str_find(Runtime& runtime, const Call& call) {
  return Value::from(QUERN_TRY(position(runtime, call, From::kLeft)));
}
Result<Value> str_rfind(Runtime& runtime, const Call& call) {
  return Value::from(QUERN_TRY(position(runtime, call, From::kRight)));
}
Result<Value> str_index(Runtime& r, const Call& c) { return found_position(r, c, From::kLeft); }
Result<Value> str_rindex(Runtime& r, const Call& c) { return found_position(r, c, From::kRight); }

Result<Value> str_count(Runtime& runtime, const Call& call) {
  const auto a = QUERN_TRY(call.bind({"", "", "", ""}, 2));
  const Str& text = *a[0].string;
  const Str* needle = QUERN_TRY(text_argument(call, a[1]));
  const Window part = QUERN_TRY(window(call, text, a[2], a[3]));
  if (!part.valid) return Value::from(int64_t{0});
  QUERN_TRY(runtime.read(text.bytes.size()));
  const std::string_view bytes = text.bytes.substr(part.begin, part.end - part.begin);
  if (needle->bytes.empty()) return Value::from(int64_t{code_points(bytes)} + 1);
  int64_t count = 0;
  for (size_t at = 0; (at = find_bytes(bytes, needle->bytes, at)) != std::string_view::npos;
       ++count) {
    at += needle->bytes.size();
  }
  return Value::from(count);
}

Result<Value> str_replace(Runtime& runtime, const Call& call) {
  const auto a = QUERN_TRY(call.bind({"", "", "", ""}, 3));
  const Str* from = QUERN_TRY(text_argument(call, a[1]));
  const Str* to = QUERN_TRY(text_argument(call, a[2]));
  return replace(runtime, *a[0].string, *from, *to, QUERN_TRY(integer_argument(call, a[3], -1)));
}

Result<Value> str_join(Runtime& runtime, const Call& call) {
  const auto a = QUERN_TRY(call.bind({"", ""}, 2));
  TextBuilder out(runtime);
  bool first = true;
  for (const Value& part : QUERN_TRY(elements(runtime, a[1]))) {
    if (!first) out.append(*a[0].string);
    first = false;
    out.append(*QUERN_TRY(text_argument(call, part)));
    if (out.failed()) break;
  }
  return out.finish();
}

Result<Value> str_format(Runtime& runtime, const Call& call) {
  return brace_format(runtime, self_of(call), Call{call.name, call.args.subspan(1), call.named});
}

Result<Value> without_affix(Runtime& runtime, const Call& call, From side) {
  const auto a = QUERN_TRY(call.bind({"", ""}, 2));
  const Str& text = *a[0].string;
  const size_t size = text.bytes.size();
  const std::string_view affix_bytes = QUERN_TRY(text_argument(call, a[1]))->bytes;
  if (side == From::kLeft && text.bytes.starts_with(affix_bytes)) {
    return slice_bytes(runtime, text, affix_bytes.size(), size);
  }
  if (side == From::kRight && text.bytes.ends_with(affix_bytes)) {
    return slice_bytes(runtime, text, 0, size - affix_bytes.size());
  }
  return a[0];
}

Result<Value> str_removeprefix(Runtime& r, const Call& c) {
  return without_affix(r, c, From::kLeft);
}
Result<Value> str_removesuffix(Runtime& r, const Call& c) {
  return without_affix(r, c, From::kRight);
}

template <Result<Value> (*map)(Runtime&, const Str&)>
Result<Value> mapping(Runtime& runtime, const Call& call) {
  QUERN_TRY(call.bind({""}, 1));
  return map(runtime, self_of(call));
}

template <CharacterClass wanted>
Result<Value> all_of_class(Runtime& runtime, const Call& call) {
  QUERN_TRY(call.bind({""}, 1));
  const std::string_view bytes = self_of(call).bytes;
  QUERN_TRY(runtime.read(bytes.size()));
  for (size_t i = 0; i < bytes.size();) {
    if (!is_of(next_code_point(bytes, i), wanted)) return Value::from(false);
  }
  return Value::from(!bytes.empty());
}

template <bool (*predicate)(const Str&)>
Result<Value> of_case(Runtime& runtime, const Call& call) {
  QUERN_TRY(call.bind({""}, 1));
  QUERN_TRY(runtime.read(self_of(call).bytes.size()));
  return Value::from(predicate(self_of(call)));
}

Result<Value> str_isascii(Runtime&, const Call& call) {
  QUERN_TRY(call.bind({""}, 1));
  return Value::from(self_of(call).ascii());
}

// ljust, rjust, center and zfill: how the missing characters are shared out.
Result<Value> justified(Runtime& runtime, const Call& call, Side text_at) {
  const auto a = QUERN_TRY(call.bind({"", "", ""}, 2));
  const Str& text = *a[0].string;
  const int64_t width = QUERN_TRY(integer_argument(call, a[1], 0));
  if (width > kMaxFormatWidth) {
    return template_error(
        fmt::format("{}(): the width is larger than {}", call.name, kMaxFormatWidth));
  }
  const Str space{" ", {}, 1};
  const Str* fill = a[2].given() ? QUERN_TRY(text_argument(call, a[2])) : &space;
  if (fill->length != 1)
    return template_error(fmt::format("{}() fills with one character", call.name));
  const int64_t missing = std::max<int64_t>(width - text.length, 0);
  int64_t left = text_at == Side::kRight ? missing : 0;
  if (text_at == Side::kBoth) left = missing / 2 + (missing & width & 1);
  TextBuilder out(runtime);
  for (int64_t i = 0; i < left; ++i) out.append(*fill);
  out.append(text);
  for (int64_t i = left; i < missing; ++i) out.append(*fill);
  return out.finish();
}

Result<Value> str_ljust(Runtime& r, const Call& c) { return justified(r, c, Side::kLeft); }
Result<Value> str_rjust(Runtime& r, const Call& c) { return justified(r, c, Side::kRight); }
Result<Value> str_center(Runtime& r, const Call& c) { return justified(r, c, Side::kBoth); }

Result<Value> str_zfill(Runtime& runtime, const Call& call) {
  const auto a = QUERN_TRY(call.bind({"", ""}, 2));
  const Str& text = *a[0].string;
  const int64_t width = QUERN_TRY(integer_argument(call, a[1], 0));
  if (width > kMaxFormatWidth) {
    return template_error(fmt::format("zfill(): the width is larger than {}", kMaxFormatWidth));
  }
  const bool sign = text.bytes.starts_with('-') || text.bytes.starts_with('+');
  TextBuilder out(runtime);
  out.append(text, 0, sign ? 1 : 0);
  out.append_repeated("0", width - text.length);
  out.append(text, sign ? 1 : 0, text.bytes.size());
  return out.finish();
}

constexpr Function kStringMethods[] = {
    {"capitalize", mapping<to_capitalized>},
    {"casefold", mapping<to_lower>},
    {"center", str_center},
    {"count", str_count},
    {"endswith", str_endswith},
    {"find", str_find},
    {"format", str_format},
    {"index", str_index},
    {"isalnum", all_of_class<CharacterClass::kAlnum>},
    {"isalpha", all_of_class<CharacterClass::kAlpha>},
    {"isascii", str_isascii},
    {"isdecimal", all_of_class<CharacterClass::kDecimal>},
    {"isdigit", all_of_class<CharacterClass::kDigit>},
    {"islower", of_case<is_lower>},
    {"isnumeric", all_of_class<CharacterClass::kNumeric>},
    {"isspace", all_of_class<CharacterClass::kSpace>},
    {"isupper", of_case<is_upper>},
    {"join", str_join},
    {"ljust", str_ljust},
    {"lower", mapping<to_lower>},
    {"lstrip", str_lstrip},
    {"partition", str_partition},
    {"removeprefix", str_removeprefix},
    {"removesuffix", str_removesuffix},
    {"replace", str_replace},
    {"rfind", str_rfind},
    {"rindex", str_rindex},
    {"rjust", str_rjust},
    {"rpartition", str_rpartition},
    {"rsplit", str_rsplit},
    {"rstrip", str_rstrip},
    {"split", str_split},
    {"splitlines", str_splitlines},
    {"startswith", str_startswith},
    {"strip", str_strip},
    {"swapcase", mapping<to_swapped>},
    {"title", mapping<to_title>},
    {"upper", mapping<to_upper>},
    {"zfill", str_zfill},
};

}  // namespace

std::span<const Function> string_methods() { return kStringMethods; }

Result<Value> strip(Runtime& runtime, const Str& text, const Value& characters, Side side) {
  const std::string_view bytes = text.bytes;
  const size_t set = characters.is(Kind::kString) ? characters.string->bytes.size() : 0;
  size_t begin = 0;
  size_t end = bytes.size();
  while (side != Side::kRight && begin < end) {
    size_t next = begin;
    next_code_point(bytes, next);
    if (!strips(bytes.substr(begin, next - begin), characters)) break;
    QUERN_TRY(runtime.read(set));
    begin = next;
  }
  while (side != Side::kLeft && begin < end) {
    const size_t last = last_code_point(bytes.substr(0, end));
    if (!strips(bytes.substr(last, end - last), characters)) break;
    QUERN_TRY(runtime.read(set));
    end = last;
  }
  return slice_bytes(runtime, text, begin, end);
}

Result<Value> replace(
    Runtime& runtime, const Str& text, const Str& from, const Str& to, int64_t limit) {
  QUERN_TRY(runtime.read(text.bytes.size()));
  if (limit < 0) limit = INT64_MAX;
  TextBuilder out(runtime);
  size_t done = 0;
  size_t at = 0;
  for (; limit > 0 && !out.failed(); --limit) {
    at = find_bytes(text.bytes, from.bytes, at);
    if (at == std::string_view::npos) break;
    QUERN_TRY(runtime.step());
    out.append(text, done, at);
    out.append(to);
    done = at + from.bytes.size();
    at = done;
    if (!from.bytes.empty()) continue;
    if (at == text.bytes.size()) break;  // an empty text is found once more at the end
    next_code_point(text.bytes, at);
  }
  out.append(text, done, text.bytes.size());
  return out.finish();
}

Result<std::vector<Value>> split_lines(Runtime& runtime, const Str& text) {
  QUERN_TRY(runtime.read(text.bytes.size()));
  std::vector<Value> lines;
  size_t begin = 0;
  for (size_t at = 0; at < text.bytes.size();) {
    const size_t end = at;
    const char32_t c = next_code_point(text.bytes, at);
    const bool breaks = (c >= 0x0a && c <= 0x0d) || (c >= 0x1c && c <= 0x1e) || c == 0x85 ||
                        c == 0x2028 || c == 0x2029;
    if (!breaks) continue;
    QUERN_TRY(runtime.step());
    if (c == '\r' && at < text.bytes.size() && text.bytes[at] == '\n') ++at;
    lines.push_back(slice_bytes(runtime, text, begin, end));
    begin = at;
  }
  if (begin < text.bytes.size()) {
    lines.push_back(slice_bytes(runtime, text, begin, text.bytes.size()));
  }
  return lines;
}

}  // namespace quern::jinja
