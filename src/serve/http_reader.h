// Turns the bytes of a connection into HTTP/1.1 requests, strictly and within limits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace quern {

struct HttpLimits {
  size_t request_line_bytes = 8 << 10;
  size_t head_bytes = 32 << 10;
  size_t fields = 64;
  size_t body_bytes = 8 << 20;    // decoded
  size_t chunk_line_bytes = 256;  // a chunk's size and extensions
};

struct HttpField {
  std::string name;  // in lower case
  std::string value;
};

struct HttpRequest {
  std::string method;
  std::string path;   // without query
  std::string query;  // behind '?', may be empty
  int minor_version = 1;
  bool keep_alive = true;
  bool expects_continue = false;
  std::vector<HttpField> fields;
  std::string body;

  // The value of the first field of that name (in lower case); empty when there is none.
  std::string_view field(std::string_view name) const;

  size_t count(std::string_view name) const;
};

// What a malformed or oversized message is answered with; the connection cannot go on.
struct HttpFailure {
  int status = 400;
  std::string message;
};

// Where a chunked body stands; see http_chunks.cc.
enum class ChunkState : uint8_t {
  kSize,
  kExtension,
  kSizeLineFeed,
  kData,
  kDataReturn,
  kDataLineFeed,
  kLastReturn,
  kLastLineFeed,
  kDone,
  kFailed
};

// Decodes a chunked body (RFC 9112 section 7.1) without trailers, whatever its pieces.
class ChunkDecoder {
 public:
  explicit ChunkDecoder(const HttpLimits& limits) : limits_(limits) {}

  // Appends decoded bytes to `body`; returns how many of `bytes` it took: all but when it is done
  // or has failed.
  size_t feed(std::string_view bytes, std::string& body);

  bool done() const { return state_ == ChunkState::kDone; }

  // 0, or the status of the failure: 400 or 413.
  int failed_status() const { return failed_status_; }

 private:
  void add(char c);
  void add_to_size(char c);
  void fail(int status);

  HttpLimits limits_;
  ChunkState state_ = ChunkState::kSize;
  uint64_t size_ = 0;  // of the chunk, then what is left of it
  int digits_ = 0;
  size_t line_bytes_ = 0;
  uint64_t total_ = 0;
  int failed_status_ = 0;
};

// One message; make another for the next. What it makes of a stream of bytes does not depend on how
// the stream is cut. Refused with 400: bare CR or LF, control characters, folded fields, more than
// one Host, Content-Length beside Transfer-Encoding, repeated or listed lengths, trailers. Others:
// 405 never; 411 a POST, PUT or PATCH without length; 413; 414; 417; 431; 501 a transfer coding
// other than chunked; 505.
class HttpReader {
 public:
  enum class State : uint8_t { kHead, kBody, kComplete, kFailed };

  explicit HttpReader(const HttpLimits& limits) : limits_(limits), chunks_(limits) {}

  // Takes bytes until the message is complete or has failed; returns how many it took.
  size_t feed(std::string_view bytes);

  State state() const { return state_; }

  // Whether a byte of the message was seen.
  bool started() const { return state_ != State::kHead || !head_.empty(); }

  // Requires kFailed.
  const HttpFailure& failure() const { return failure_; }

  // The head is there in kBody, all of it in kComplete.
  HttpRequest& request() { return request_; }

 private:
  size_t feed_head(std::string_view bytes);
  size_t feed_body(std::string_view bytes);
  // Whether the byte may stand where it stands.
  bool scan(char c);
  bool end_line();
  void finish_head();
  void check_framing();
  void split_target(std::string_view target);
  void fail(int status, std::string message);

  HttpLimits limits_;
  State state_ = State::kHead;
  std::string head_;
  size_t line_bytes_ = 0;
  size_t lines_ = 0;
  bool skipped_empty_line_ = false;
  bool head_complete_ = false;
  bool chunked_ = false;
  uint64_t body_left_ = 0;
  ChunkDecoder chunks_;
  HttpRequest request_;
  HttpFailure failure_;
};

}  // namespace quern
