#include "engine/stop_matcher.h"

#include <algorithm>

namespace quern {
namespace {

// Length of the longest end of `text` that is a beginning of `stop`, but not all of it.
size_t overlap(std::string_view text, std::string_view stop) {
  for (size_t length = std::min(text.size(), stop.size() - 1); length > 0; --length) {
    if (text.substr(text.size() - length) == stop.substr(0, length)) return length;
  }
  return 0;
}

}  // namespace

std::string StopMatcher::push(std::string_view piece) {
  if (!found_.empty()) return {};
  held_ += piece;
  size_t first_end = std::string::npos;
  for (const std::string& stop : stops_) {
    const size_t begin = held_.find(stop);
    if (begin == std::string::npos) continue;
    const size_t end = begin + stop.size();
    if (end > first_end || (end == first_end && stop.size() < found_.size())) continue;
    first_end = end;
    found_ = stop;
  }
  if (!found_.empty()) {
    std::string text = std::move(held_);
    text.resize(first_end - found_.size());
    held_.clear();
    return text;
  }
  size_t keep = 0;
  for (const std::string& stop : stops_) keep = std::max(keep, overlap(held_, stop));
  std::string text = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return text;
}

std::string StopMatcher::finish() {
  std::string text = std::move(held_);
  held_.clear();
  return text;
}

}  // namespace quern
