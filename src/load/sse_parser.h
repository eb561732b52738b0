// Server-sent events as they arrive: bytes in any pieces in, whole events out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/function_ref.h"

namespace quern {

inline constexpr size_t kMaxSseEventBytes = 4 << 20;

struct SseEvent {
  std::string_view type;  // "message" where the server names none
  std::string_view data;
};

// The event stream of the HTML standard (section 9.2.6): lines end in LF, CR or CR LF, several
// data fields of an event join with LF, comments and unknown fields are skipped, and what no empty
// line ended is not an event. Identifiers and reconnection times are of no use here.
class SseParser {
 public:
  explicit SseParser(size_t max_event_bytes = kMaxSseEventBytes)
      : max_event_bytes_(max_event_bytes) {}

  // Calls `on_event` for each event that these bytes complete; its views last until it returns.
  // False, then and ever after, once a line or the data of an event is larger than the limit.
  bool feed(std::string_view bytes, FunctionRef<void(const SseEvent&)> on_event);

 private:
  void end_line(FunctionRef<void(const SseEvent&)> on_event);
  void take_field(std::string_view line);

  size_t max_event_bytes_;
  std::string line_;  // without its end
  std::string type_, data_;
  bool after_cr_ = false;  // a LF now belongs to the line that has ended
  bool first_line_ = true;
  bool failed_ = false;
};

}  // namespace quern
