// The bytes of HTTP/1.1 answers: heads, and the chunks of a stream.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace quern {

enum class BodyFraming : uint8_t { kLength, kChunked, kUntilClose };
enum class AfterAnswer : uint8_t { kKeepAlive, kClose };

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> fields;  // names and values of our own making
  BodyFraming framing = BodyFraming::kLength;
  uint64_t length = 0;  // for kLength
  AfterAnswer after = AfterAnswer::kKeepAlive;
  int64_t unix_s = 0;  // Date
};

// "Not Found"; "Unknown" for a status that is never sent.
std::string_view reason_phrase(int status);

// IMF-fixdate of RFC 9110: "Sun, 06 Nov 1994 08:49:37 GMT".
std::string http_date(int64_t unix_s);

// Appends the head with its empty line.
void append_head(const HttpResponse& response, std::string& out);

// Appends one chunk; nothing for an empty one, which would end the body.
void append_chunk(std::string_view bytes, std::string& out);

// Ends a chunked body.
void append_last_chunk(std::string& out);

}  // namespace quern
