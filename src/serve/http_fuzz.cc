// Fuzzes the framing of requests: what is read does not depend on how the bytes arrive.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "base/random.h"
#include "serve/http_reader.h"

namespace quern {
namespace {

struct Read {
  int failed_status = 0;
  size_t end = 0;  // of the message in the stream
  std::string method, path, query, body;

  friend bool operator==(const Read&, const Read&) = default;
};

constexpr HttpLimits kLimits = {.request_line_bytes = 128,
                                .head_bytes = 512,
                                .fields = 8,
                                .body_bytes = 256,
                                .chunk_line_bytes = 16};

// All messages of the stream, fed in pieces of up to `most` bytes.
std::vector<Read> read_all(std::string_view bytes, size_t most) {
  std::vector<Read> messages;
  size_t at = 0;
  while (at < bytes.size()) {
    HttpReader reader(kLimits);
    for (uint64_t piece = 0; at < bytes.size(); ++piece) {
      const size_t count = most == 0 ? bytes.size() : 1 + random_bits(most, at, piece) % most;
      const size_t taken = reader.feed(bytes.substr(at, count));
      at += taken;
      if (reader.state() >= HttpReader::State::kComplete) break;
      QUERN_CHECK(taken > 0);
    }
    if (reader.state() == HttpReader::State::kFailed) {
      QUERN_CHECK(reader.failure().status >= 400 && reader.failure().status < 600);
      messages.push_back({.failed_status = reader.failure().status, .end = at});
      return messages;
    }
    if (reader.state() != HttpReader::State::kComplete) return messages;
    HttpRequest& request = reader.request();
    QUERN_CHECK(request.body.size() <= kLimits.body_bytes);
    QUERN_CHECK(request.fields.size() <= kLimits.fields);
    QUERN_CHECK(request.path == "*" || request.path.starts_with('/'));
    messages.push_back({0, at, request.method, request.path, request.query, request.body});
  }
  return messages;
}

}  // namespace
}  // namespace quern

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto whole = quern::read_all(bytes, 0);
  QUERN_CHECK(whole == quern::read_all(bytes, 1));
  QUERN_CHECK(whole == quern::read_all(bytes, 7));
  return 0;
}
