// The client's side of one HTTP/1.1 connection, plain or TLS: one request after the other, answers
// handed on as their bytes arrive.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl.hpp>

#include "base/clock.h"

namespace quern {

struct HttpTarget {
  boost::asio::ip::tcp::endpoint endpoint{};
  std::string host{};                        // as the certificate names it
  boost::asio::ssl::context* tls = nullptr;  // borrowed; null for plain connections
};

enum class HttpEnd : uint8_t {
  kComplete,
  kNoConnection,  // it could not be opened, or the handshake failed
  kBroken,        // closed or malformed in mid-answer
  kCancelled
};

// Whoever waits for an answer. All calls come from the event loop.
class HttpSink {
 public:
  HttpSink() = default;
  HttpSink(const HttpSink&) = delete;
  HttpSink& operator=(const HttpSink&) = delete;
  virtual ~HttpSink() = default;

  // The whole request is with the system.
  virtual void on_sent() = 0;
  virtual void on_head(int status) = 0;
  // `now_ns` is when these bytes were there to be read.
  virtual void on_body(std::string_view bytes, int64_t now_ns) = 0;
  // The last call. The connection may be given the next request from within.
  virtual void on_end(HttpEnd end, const std::string& error, int64_t now_ns) = 0;
};

// Keeps the connection open between requests when the server does. Outlives what it started: it may
// be destroyed only between requests.
class HttpConnection {
 public:
  // Borrows all three.
  HttpConnection(boost::asio::io_context& io, const HttpTarget& target, const Clock& clock);
  HttpConnection(const HttpConnection&) = delete;
  HttpConnection& operator=(const HttpConnection&) = delete;
  ~HttpConnection();

  // Sends a whole request, head and body, over the open connection or a new one. When a connection
  // that was kept open turns out closed before any byte of an answer, the request is sent once
  // more over a new one. Requires that no request is on its way.
  void start(std::string request, HttpSink& sink);

  // Closes the connection; on_end follows from the event loop with kCancelled.
  void cancel();

  // Connections opened so far.
  int64_t connects() const { return connects_; }

 private:
  class Parser;
  using error_code = boost::system::error_code;

  bool alive();
  void connect();
  void on_connected(const error_code& error);
  void handshake();
  void exchange();
  void arm_read();
  void on_read(const error_code& error, size_t count);
  void on_closed(const error_code& error);
  void on_written(const error_code& error);
  void feed(std::string_view bytes, int64_t now_ns);
  void complete(size_t left);
  void close();
  void finish(HttpEnd end, std::string message);
  // Calls on_end, or begins again, once no handler is left.
  void settle();

  boost::asio::io_context& io_;
  const HttpTarget& target_;
  const Clock& clock_;
  boost::asio::ip::tcp::socket socket_;
  std::optional<boost::asio::ssl::stream<boost::asio::ip::tcp::socket&>> tls_;
  std::unique_ptr<Parser> parser_;
  HttpSink* sink_ = nullptr;  // while a request is on its way
  std::string request_;
  std::string input_;  // bytes that the parser wants more of first
  std::vector<char> buffer_;
  int64_t connects_ = 0;
  int64_t now_ns_ = 0;  // of the bytes being read
  int pending_ = 0;     // handlers
  bool reused_ = false;
  bool received_ = false;  // any byte of this answer
  bool written_ = false;
  bool ending_ = false;
  bool again_ = false;  // it begins again rather than ends
  HttpEnd end_ = HttpEnd::kComplete;
  std::string message_;
};

}  // namespace quern
