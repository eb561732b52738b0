// Fuzzes the event stream: what is read does not depend on how the bytes arrive.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/random.h"
#include "load/sse_parser.h"
#include "load/stream_chunk.h"

namespace quern {
namespace {

constexpr size_t kMaxEventBytes = 512;

struct Read {
  std::vector<std::pair<std::string, std::string>> events;
  bool ok = true;

  friend bool operator==(const Read&, const Read&) = default;
};

// The events of the stream, fed in pieces of up to `most` bytes; 0: whole.
Read read_all(std::string_view bytes, size_t most) {
  Read read;
  SseParser parser(kMaxEventBytes);
  for (size_t at = 0, piece = 0; at < bytes.size() && read.ok; ++piece) {
    const size_t count = most == 0 ? bytes.size() : 1 + random_bits(most, 0, piece) % most;
    read.ok = parser.feed(bytes.substr(at, count), [&](const SseEvent& event) {
      QUERN_CHECK(event.data.size() <= kMaxEventBytes);
      read.events.emplace_back(event.type, event.data);
    });
    at += count;
  }
  return read;
}

}  // namespace
}  // namespace quern

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const quern::Read whole = quern::read_all(bytes, 0);
  QUERN_CHECK(whole == quern::read_all(bytes, 1));
  QUERN_CHECK(whole == quern::read_all(bytes, 7));
  for (const auto& [type, text] : whole.events) {
    const auto chunk = quern::read_stream_chunk(text);
    QUERN_CHECK(chunk || !chunk.error().message.empty());
  }
  return 0;
}
