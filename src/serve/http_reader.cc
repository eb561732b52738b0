#include "serve/http_reader.h"

#include <algorithm>
#include <optional>

#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <fmt/format.h>

namespace quern {
namespace {

namespace http = boost::beast::http;

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

std::string_view view(boost::beast::string_view text) { return {text.data(), text.size()}; }

bool needs_length(std::string_view method) {
  return method == "POST" || method == "PUT" || method == "PATCH";
}

// Digits alone: Content-Length has neither sign nor list.
std::optional<uint64_t> parse_length(std::string_view text) {
  constexpr size_t kMaxDigits = 18;  // below 2^63
  if (text.empty() || text.size() > kMaxDigits) return std::nullopt;
  uint64_t value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + static_cast<uint64_t>(c - '0');
  }
  return value;
}

}  // namespace

std::string_view HttpRequest::field(std::string_view name) const {
  for (const HttpField& f : fields) {
    if (f.name == name) return f.value;
  }
  return {};
}

size_t HttpRequest::count(std::string_view name) const {
  return static_cast<size_t>(std::count_if(fields.begin(), fields.end(),
                                           [&](const HttpField& f) { return f.name == name; }));
}

size_t HttpReader::feed(std::string_view bytes) {
  size_t taken = 0;
  if (state_ == State::kHead) taken = feed_head(bytes);
  if (state_ == State::kBody) taken += feed_body(bytes.substr(taken));
  return taken;
}

size_t HttpReader::feed_head(std::string_view bytes) {
  size_t taken = 0;
  while (taken < bytes.size() && state_ == State::kHead) {
    const char c = bytes[taken++];
    head_ += c;
    if (!scan(c)) break;
    if (head_complete_) finish_head();
  }
  return taken;
}

bool HttpReader::scan(char c) {
  const char before = head_.size() < 2 ? '\0' : head_[head_.size() - 2];
  if (c == '\n') {
    if (before == '\r') return end_line();
    fail(400, "a line of the head ends without a carriage return");
    return false;
  }
  if (before == '\r') {
    fail(400, "a carriage return of the head is not followed by a line feed");
    return false;
  }
  if (c == '\r') return true;
  if ((static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f) {
    fail(400, "the head has a control character");
    return false;
  }
  if (line_bytes_ == 0 && (c == ' ' || c == '\t')) {
    fail(400, "a line of the head begins with white space");
    return false;
  }
  ++line_bytes_;
  if (lines_ == 0 && line_bytes_ > limits_.request_line_bytes) {
    fail(414, fmt::format("the request line is longer than {} bytes", limits_.request_line_bytes));
    return false;
  }
  if (head_.size() > limits_.head_bytes) {
    fail(431, fmt::format("the head is larger than {} bytes", limits_.head_bytes));
    return false;
  }
  return true;
}

bool HttpReader::end_line() {
  if (line_bytes_ == 0 && lines_ == 0) {
    // RFC 9112 section 2.2: one empty line before the request line is ignored.
    if (skipped_empty_line_) {
      fail(400, "the request line is empty");
      return false;
    }
    skipped_empty_line_ = true;
    head_.clear();
    return true;
  }
  if (line_bytes_ == 0) {
    head_complete_ = true;
    return true;
  }
  line_bytes_ = 0;
  if (++lines_ > limits_.fields + 1) {
    fail(431, fmt::format("the head has more than {} fields", limits_.fields));
    return false;
  }
  return true;
}

void HttpReader::finish_head() {
  http::request_parser<http::empty_body> parser;
  parser.header_limit(static_cast<uint32_t>(limits_.head_bytes + 2));
  parser.body_limit(boost::none);
  boost::beast::error_code error;
  const size_t used = parser.put(boost::asio::buffer(head_), error);
  if (error == http::error::bad_version) return fail(505, "only HTTP/1.1 is spoken here");
  if ((error && error != http::error::need_more) || !parser.is_header_done() ||
      used != head_.size()) {
    return fail(400, fmt::format("malformed head: {}", error.message()));
  }
  const auto& message = parser.get();
  request_.method = view(message.method_string());
  request_.minor_version = message.version() == 10 ? 0 : 1;
  request_.keep_alive = message.keep_alive();
  for (const auto& f : message) {
    request_.fields.push_back({lower(view(f.name_string())), std::string(view(f.value()))});
  }
  split_target(view(message.target()));
  if (state_ != State::kFailed) check_framing();
  head_ = std::string();
}

void HttpReader::split_target(std::string_view target) {
  for (const char c : target) {
    if (c <= 0x20 || c >= 0x7f) return fail(400, "the request target is not printable ASCII");
  }
  if (const size_t scheme = target.find("://"); !target.starts_with('/') && scheme < 8) {
    const size_t path = target.find_first_of("/?", scheme + 3);
    target = path == std::string_view::npos ? std::string_view("/") : target.substr(path);
  }
  if (target != "*" && !target.starts_with('/')) {
    return fail(400, "the request target does not begin with '/'");
  }
  if (target.find('#') != std::string_view::npos) {
    return fail(400, "the request target has a fragment");
  }
  const size_t question = target.find('?');
  request_.path = target.substr(0, question);
  if (question != std::string_view::npos) request_.query = target.substr(question + 1);
}

void HttpReader::check_framing() {
  const size_t lengths = request_.count("content-length");
  const size_t codings = request_.count("transfer-encoding");
  const size_t hosts = request_.count("host");
  if (hosts > 1 || (hosts == 0 && request_.minor_version == 1)) {
    return fail(400, "a request has exactly one Host field");
  }
  if (lengths > 1 || codings > 1 || (lengths == 1 && codings == 1)) {
    return fail(400, "the length of the body is stated more than once");
  }
  if (codings == 1) {
    if (request_.minor_version == 0) return fail(400, "HTTP/1.0 has no Transfer-Encoding");
    if (lower(request_.field("transfer-encoding")) != "chunked") {
      return fail(501, "the only transfer coding spoken here is chunked");
    }
    chunked_ = true;
  }
  if (lengths == 1) {
    const auto length = parse_length(request_.field("content-length"));
    if (!length) return fail(400, "Content-Length is not a decimal number");
    if (*length > limits_.body_bytes) {
      return fail(
          413, fmt::format("the body has {} bytes, the limit is {}", *length, limits_.body_bytes));
    }
    body_left_ = *length;
  } else if (!chunked_ && needs_length(request_.method)) {
    return fail(411, "a body needs Content-Length or Transfer-Encoding: chunked");
  }
  if (const std::string expect = lower(request_.field("expect")); !expect.empty()) {
    if (expect != "100-continue") return fail(417, "the only expectation met is 100-continue");
    request_.expects_continue = request_.minor_version == 1 && (chunked_ || body_left_ > 0);
  }
  state_ = chunked_ || body_left_ > 0 ? State::kBody : State::kComplete;
}

size_t HttpReader::feed_body(std::string_view bytes) {
  if (!chunked_) {
    const size_t count = static_cast<size_t>(std::min<uint64_t>(body_left_, bytes.size()));
    request_.body.append(bytes.substr(0, count));
    body_left_ -= count;
    if (body_left_ == 0) state_ = State::kComplete;
    return count;
  }
  const size_t taken = chunks_.feed(bytes, request_.body);
  if (chunks_.done()) state_ = State::kComplete;
  if (chunks_.failed_status() == 413) {
    fail(413, fmt::format("the body is larger than {} bytes", limits_.body_bytes));
  } else if (chunks_.failed_status() != 0) {
    fail(400, "malformed chunk");
  }
  return taken;
}

void HttpReader::fail(int status, std::string message) {
  state_ = State::kFailed;
  failure_ = {status, std::move(message)};
}

}  // namespace quern
