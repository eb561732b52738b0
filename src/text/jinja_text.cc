#include "text/jinja_text.h"

#include <algorithm>
#include <cstring>

#include <utf8proc.h>

namespace quern::jinja {
namespace {

bool continues(char c) { return (static_cast<unsigned char>(c) & 0xc0u) == 0x80u; }

}  // namespace

uint32_t code_points(std::string_view bytes) {
  return static_cast<uint32_t>(
      std::count_if(bytes.begin(), bytes.end(), [](char c) { return !continues(c); }));
}

size_t find_invalid_utf8(std::string_view bytes) {
  const auto* data = reinterpret_cast<const utf8proc_uint8_t*>(bytes.data());
  size_t offset = 0;
  while (offset < bytes.size()) {
    if (static_cast<unsigned char>(bytes[offset]) < 0x80) {
      ++offset;
      continue;
    }
    utf8proc_int32_t code_point = 0;
    const utf8proc_ssize_t size = utf8proc_iterate(
        data + offset, static_cast<utf8proc_ssize_t>(bytes.size() - offset), &code_point);
    if (size < 1) return offset;
    offset += static_cast<size_t>(size);
  }
  return std::string_view::npos;
}

void append_utf8(std::string& out, char32_t code_point) {
  utf8proc_uint8_t bytes[4];
  const auto size = utf8proc_encode_char(static_cast<utf8proc_int32_t>(code_point), bytes);
  out.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(size));
}

char32_t next_code_point(std::string_view bytes, size_t& offset) {
  const auto first = static_cast<unsigned char>(bytes[offset++]);
  if (first < 0x80) return first;
  char32_t code_point = first < 0xe0 ? first & 0x1fu : first < 0xf0 ? first & 0x0fu : first & 0x07u;
  while (offset < bytes.size() && continues(bytes[offset])) {
    code_point = (code_point << 6) | (static_cast<unsigned char>(bytes[offset++]) & 0x3fu);
  }
  return code_point;
}

size_t byte_offset(const Str& text, int64_t index) {
  if (text.ascii()) return static_cast<size_t>(index);
  size_t offset = 0;
  for (; index > 0 && offset < text.bytes.size(); --index) {
    ++offset;
    while (offset < text.bytes.size() && continues(text.bytes[offset])) ++offset;
  }
  return offset;
}

void TextBuilder::mark(size_t begin, size_t end) {
  if (begin == end) return;
  if (!marks_.empty() && marks_.back().end == begin) {
    marks_.back().end = static_cast<uint32_t>(end);
  } else {
    marks_.push_back({static_cast<uint32_t>(begin), static_cast<uint32_t>(end)});
  }
}

void TextBuilder::append(std::string_view bytes, TextOrigin origin) {
  const bool fits =
      bytes_.size() + bytes.size() <= Heap::kMaxArrayBytes && runtime_.heap().fits(bytes.size());
  if (failed_ || !fits) {
    failed_ = true;
    return;
  }
  const size_t begin = bytes_.size();
  bytes_.append(bytes);
  runtime_.heap().hold(bytes.size());
  if (origin == TextOrigin::kMessage) mark(begin, bytes_.size());
}

void TextBuilder::append(const Str& text, size_t begin, size_t end) {
  const size_t at = bytes_.size();
  append(text.bytes.substr(begin, end - begin));
  if (failed_) return;
  for (const MarkRange& range : text.marks) {
    const size_t from = std::max<size_t>(range.begin, begin);
    const size_t to = std::min<size_t>(range.end, end);
    if (from < to) mark(at + from - begin, at + to - begin);
  }
}

void TextBuilder::append_for(std::string_view bytes, const Str& text, size_t begin) {
  append(bytes, marked_at(text, begin) ? TextOrigin::kMessage : TextOrigin::kTemplate);
}

void TextBuilder::append_repeated(std::string_view bytes, int64_t count) {
  for (; count > 0 && !failed_ && !bytes.empty(); --count) append(bytes);
}

Result<Value> TextBuilder::finish() {
  if (failed_) return runtime_.heap().limit_error();
  Heap& heap = runtime_.heap();
  const std::string built = std::move(bytes_);
  bytes_.clear();
  heap.release(built.size());
  const std::string_view bytes = QUERN_TRY(heap.copy(built));
  const std::span<MarkRange> marks = QUERN_TRY(heap.make_array<MarkRange>(marks_.size()));
  std::copy(marks_.begin(), marks_.end(), marks.begin());
  return Value::from(heap.make(Str{bytes, marks, code_points(bytes)}));
}

std::vector<TemplateSegment> TextBuilder::segments() const {
  std::vector<TemplateSegment> result;
  const std::string_view all = bytes_;
  size_t done = 0;
  const auto add = [&](size_t end, TextOrigin origin) {
    if (end > done) result.push_back({std::string(all.substr(done, end - done)), origin});
    done = end;
  };
  for (const MarkRange& range : marks_) {
    add(range.begin, TextOrigin::kTemplate);
    add(range.end, TextOrigin::kMessage);
  }
  add(all.size(), TextOrigin::kTemplate);
  return result;
}

bool marked_at(const Str& text, size_t offset) {
  const auto after =
      std::upper_bound(text.marks.begin(), text.marks.end(), offset,
                       [](size_t at, const MarkRange& range) { return at < range.begin; });
  return after != text.marks.begin() && offset < std::prev(after)->end;
}

Value slice_bytes(Runtime& runtime, const Str& text, size_t begin, size_t end) {
  Heap& heap = runtime.heap();
  Str part{text.bytes.substr(begin, end - begin), {}, 0};
  part.length = text.ascii() ? static_cast<uint32_t>(part.bytes.size()) : code_points(part.bytes);
  const auto first = std::partition_point(text.marks.begin(), text.marks.end(),
                                          [&](const MarkRange& r) { return r.end <= begin; });
  const auto last = std::partition_point(first, text.marks.end(),
                                         [&](const MarkRange& r) { return r.begin < end; });
  if (first != last && begin < end) {
    // A single range is by far the most common: a text is the caller's or it is not.
    if (last - first == 1) {
      const MarkRange only{static_cast<uint32_t>(std::max<size_t>(first->begin, begin) - begin),
                           static_cast<uint32_t>(std::min<size_t>(first->end, end) - begin)};
      part.marks = {heap.make(only), 1};
    } else {
      auto marks = heap.make_array<MarkRange>(static_cast<size_t>(last - first));
      if (!marks) return Value::from(heap.make(Str{}));  // the next step() reports it
      auto out = marks->begin();
      for (auto range = first; range != last; ++range, ++out) {
        *out = {static_cast<uint32_t>(std::max<size_t>(range->begin, begin) - begin),
                static_cast<uint32_t>(std::min<size_t>(range->end, end) - begin)};
      }
      part.marks = *marks;
    }
  }
  return Value::from(heap.make(part));
}

Result<std::vector<Value>> characters(Runtime& runtime, const Str& text) {
  QUERN_TRY(runtime.step(text.length));
  if (!runtime.heap().fits(text.length * (sizeof(Str) + sizeof(MarkRange) + sizeof(Value)))) {
    return runtime.heap().limit_error();
  }
  std::vector<Value> result;
  result.reserve(text.length);
  for (size_t offset = 0; offset < text.bytes.size();) {
    const size_t begin = offset;
    next_code_point(text.bytes, offset);
    result.push_back(slice_bytes(runtime, text, begin, offset));
  }
  return result;
}

size_t find_bytes(std::string_view haystack, std::string_view needle, size_t from) {
  if (from > haystack.size()) return std::string_view::npos;
  if (needle.empty()) return from;
  // memmem is the two-way algorithm: linear, where string_view::find is quadratic at worst.
  const void* found =
      memmem(haystack.data() + from, haystack.size() - from, needle.data(), needle.size());
  if (found == nullptr) return std::string_view::npos;
  return static_cast<size_t>(static_cast<const char*>(found) - haystack.data());
}

bool is_space(char32_t code_point) {
  if (code_point < 0x80) {
    return code_point == ' ' || (code_point >= 0x09 && code_point <= 0x0d) ||
           (code_point >= 0x1c && code_point <= 0x1f);
  }
  if (code_point == 0x85) return true;
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(code_point));
  return category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL ||
         category == UTF8PROC_CATEGORY_ZP;
}

}  // namespace quern::jinja
