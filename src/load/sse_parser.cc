#include "load/sse_parser.h"

namespace quern {
namespace {

constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

}  // namespace

bool SseParser::feed(std::string_view bytes, FunctionRef<void(const SseEvent&)> on_event) {
  while (!bytes.empty() && !failed_) {
    if (after_cr_ && bytes.front() == '\n') {
      after_cr_ = false;
      bytes.remove_prefix(1);
      continue;
    }
    after_cr_ = false;
    const size_t end = bytes.find_first_of("\r\n");
    line_ += bytes.substr(0, end);
    if (line_.size() + data_.size() > max_event_bytes_) failed_ = true;
    if (end == std::string_view::npos || failed_) break;
    after_cr_ = bytes[end] == '\r';
    bytes.remove_prefix(end + 1);
    end_line(on_event);
  }
  return !failed_;
}

void SseParser::end_line(FunctionRef<void(const SseEvent&)> on_event) {
  std::string_view line = line_;
  if (first_line_ && line.starts_with(kByteOrderMark)) line.remove_prefix(kByteOrderMark.size());
  first_line_ = false;
  if (!line.empty()) {
    take_field(line);
  } else {
    if (!data_.empty()) {
      data_.pop_back();  // the LF behind the last data field
      on_event({type_.empty() ? std::string_view("message") : type_, data_});
    }
    data_.clear();
    type_.clear();
  }
  line_.clear();
}

void SseParser::take_field(std::string_view line) {
  const size_t colon = line.find(':');
  const std::string_view name = line.substr(0, colon);
  std::string_view value;
  if (colon != std::string_view::npos) value = line.substr(colon + 1);
  if (value.starts_with(' ')) value.remove_prefix(1);
  if (name == "data") {
    data_ += value;
    data_ += '\n';
  } else if (name == "event") {
    type_ = value;
  }
}

}  // namespace quern
