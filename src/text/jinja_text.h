// Marked text: building, slicing and searching strings so that every byte keeps its origin.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/chat_template.h"
#include "text/jinja_runtime.h"
#include "text/jinja_value.h"

namespace quern::jinja {

// Code points of valid UTF-8.
uint32_t code_points(std::string_view bytes);

// The offset of the first byte that is not valid UTF-8 (no surrogates, nothing overlong), or npos.
size_t find_invalid_utf8(std::string_view bytes);

void append_utf8(std::string& out, char32_t code_point);

// Decodes the code point that starts at `offset` and moves the offset behind it. Requires valid
// UTF-8.
char32_t next_code_point(std::string_view bytes, size_t& offset);

// The byte offset of code point `index`, which is at most the length.
size_t byte_offset(const Str& text, int64_t index);

// Grows a text piece by piece. Failure to fit the memory limit sticks until finish().
class TextBuilder {
 public:
  explicit TextBuilder(Runtime& runtime) : runtime_(runtime) {}
  TextBuilder(const TextBuilder&) = delete;
  TextBuilder& operator=(const TextBuilder&) = delete;
  ~TextBuilder() { runtime_.heap().release(bytes_.size()); }

  void append(std::string_view bytes, TextOrigin origin = TextOrigin::kTemplate);
  void append(const Str& text) { append(text, 0, text.bytes.size()); }
  // The bytes [begin, end) of `text`.
  void append(const Str& text, size_t begin, size_t end);
  // `bytes` in place of the bytes [begin, end) of `text`, marked as the first of them.
  void append_for(std::string_view bytes, const Str& text, size_t begin);
  void append_repeated(std::string_view bytes, int64_t count);

  size_t size() const { return bytes_.size(); }

  bool failed() const { return failed_; }

  // The text; the builder is empty afterwards. Errors: it did not fit the memory limit.
  Result<Value> finish();

  // The same as segments, for the rendering itself.
  std::vector<TemplateSegment> segments() const;

 private:
  void mark(size_t begin, size_t end);

  Runtime& runtime_;
  std::string bytes_;
  std::vector<MarkRange> marks_;
  bool failed_ = false;
};

// True when byte `offset` of `text` came from the caller.
bool marked_at(const Str& text, size_t offset);

// The bytes [begin, end) of `text` as a text of their own, sharing its bytes. Requires both to lie
// on code points.
Value slice_bytes(Runtime& runtime, const Str& text, size_t begin, size_t end);

// The text's code points as texts. Errors: memory and steps.
Result<std::vector<Value>> characters(Runtime& runtime, const Str& text);

// std::string_view::find in linear time, whatever the needle.
size_t find_bytes(std::string_view haystack, std::string_view needle, size_t from);

// Python's str.isspace for one code point.
bool is_space(char32_t code_point);

}  // namespace quern::jinja
