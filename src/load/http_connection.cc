#include "load/http_connection.h"

#include <utility>

#include <boost/asio/buffer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/basic_parser.hpp>
#include <boost/beast/http/error.hpp>
#include <fmt/format.h>
#include <sys/socket.h>

#include "base/check.h"

namespace quern {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::ip::tcp;

constexpr size_t kReadBytes = 16 << 10;
constexpr uint32_t kMaxHeadBytes = 64 << 10;

bool is_end_of_stream(const boost::system::error_code& error) {
  return error == asio::error::eof || error == asio::ssl::error::stream_truncated;
}

bool is_address(const std::string& host) {
  boost::system::error_code error;
  asio::ip::make_address(host, error);
  return !error;
}

}  // namespace

// Beast's parser with the body handed on instead of kept.
class HttpConnection::Parser final : public http::basic_parser<false> {
 public:
  explicit Parser(HttpConnection& owner) : owner_(owner) {
    eager(true);
    body_limit(boost::none);
    header_limit(kMaxHeadBytes);
  }

  int status() const { return status_; }

 private:
  using error = boost::beast::error_code;
  using text = boost::beast::string_view;

  void on_request_impl(http::verb, text, text, int, error&) override {}

  void on_response_impl(int code, text, int, error&) override { status_ = code; }

  void on_field_impl(http::field, text, text, error&) override {}

  void on_header_impl(error&) override {
    if (status_ >= 200) owner_.sink_->on_head(status_);
  }

  void on_body_init_impl(const boost::optional<uint64_t>&, error&) override {}

  size_t on_body_impl(text body, error&) override { return take(body); }

  void on_chunk_header_impl(uint64_t, text, error&) override {}

  size_t on_chunk_body_impl(uint64_t, text body, error&) override { return take(body); }

  void on_finish_impl(error&) override {}

  size_t take(text body) {
    if (!owner_.ending_) owner_.sink_->on_body({body.data(), body.size()}, owner_.now_ns_);
    return body.size();
  }

  HttpConnection& owner_;
  int status_ = 0;
};

HttpConnection::HttpConnection(asio::io_context& io, const HttpTarget& target, const Clock& clock)
    : io_(io), target_(target), clock_(clock), socket_(io), buffer_(kReadBytes) {}

HttpConnection::~HttpConnection() = default;

void HttpConnection::start(std::string request, HttpSink& sink) {
  QUERN_CHECK(sink_ == nullptr && pending_ == 0);
  sink_ = &sink;
  request_ = std::move(request);
  ending_ = false;
  again_ = false;
  reused_ = alive();
  if (reused_) return exchange();
  connect();
}

void HttpConnection::cancel() {
  if (sink_ != nullptr && !ending_) finish(HttpEnd::kCancelled, "cancelled");
}

// Whether the connection is open and the server has not closed it since the last answer.
bool HttpConnection::alive() {
  if (!socket_.is_open()) return false;
  char byte = 0;
  const ssize_t count = ::recv(socket_.native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return true;
  close();
  return false;
}

void HttpConnection::connect() {
  tls_.reset();
  socket_ = tcp::socket(io_);
  ++connects_;
  ++pending_;
  socket_.async_connect(target_.endpoint, [this](const error_code& error) {
    --pending_;
    if (!ending_) on_connected(error);
    settle();
  });
}

void HttpConnection::on_connected(const error_code& error) {
  if (error) {
    return finish(HttpEnd::kNoConnection, fmt::format("cannot connect: {}", error.message()));
  }
  error_code ignored;
  socket_.set_option(tcp::no_delay(true), ignored);
  if (target_.tls != nullptr) return handshake();
  exchange();
}

void HttpConnection::handshake() {
  tls_.emplace(socket_, *target_.tls);
  if (!is_address(target_.host)) {
    SSL_set_tlsext_host_name(tls_->native_handle(), target_.host.c_str());
  }
  ++pending_;
  tls_->async_handshake(asio::ssl::stream_base::client, [this](const error_code& error) {
    --pending_;
    if (!ending_ && error) {
      finish(HttpEnd::kNoConnection, fmt::format("TLS handshake: {}", error.message()));
    } else if (!ending_) {
      exchange();
    }
    settle();
  });
}

void HttpConnection::exchange() {
  parser_ = std::make_unique<Parser>(*this);
  input_.clear();
  received_ = false;
  written_ = false;
  const auto on_write = [this](const error_code& error, size_t) {
    --pending_;
    on_written(error);
    settle();
  };
  ++pending_;
  if (tls_) {
    asio::async_write(*tls_, asio::buffer(request_), on_write);
  } else {
    asio::async_write(socket_, asio::buffer(request_), on_write);
  }
  arm_read();
}

void HttpConnection::on_written(const error_code& error) {
  // When it failed, reading says why, or has an answer that came before the request was whole.
  if (error || ending_) return;
  written_ = true;
  sink_->on_sent();
}

void HttpConnection::arm_read() {
  const auto on_bytes = [this](const error_code& error, size_t count) {
    --pending_;
    if (!ending_) on_read(error, count);
    settle();
  };
  ++pending_;
  if (tls_) {
    tls_->async_read_some(asio::buffer(buffer_), on_bytes);
  } else {
    socket_.async_read_some(asio::buffer(buffer_), on_bytes);
  }
}

void HttpConnection::on_read(const error_code& error, size_t count) {
  if (error) return on_closed(error);
  received_ = true;
  feed({buffer_.data(), count}, clock_.now_ns());
  if (!ending_) arm_read();
}

void HttpConnection::on_closed(const error_code& error) {
  if (reused_ && !received_) {
    again_ = true;
    reused_ = false;
    return finish(HttpEnd::kBroken, "");
  }
  error_code incomplete;
  if (is_end_of_stream(error) && parser_->got_some()) {
    now_ns_ = clock_.now_ns();
    parser_->put_eof(incomplete);
    if (!incomplete && parser_->is_done()) {
      close();
      return finish(HttpEnd::kComplete, "");
    }
  }
  const char* when = received_ ? "in mid-answer" : "without an answer";
  finish(HttpEnd::kBroken, is_end_of_stream(error)
                               ? fmt::format("the server closed the connection {}", when)
                               : fmt::format("the connection broke {}: {}", when, error.message()));
}

void HttpConnection::feed(std::string_view bytes, int64_t now_ns) {
  now_ns_ = now_ns;
  std::string joined;
  if (!input_.empty()) {
    joined = std::move(input_);
    joined += bytes;
    bytes = joined;
  }
  while (!bytes.empty() && !ending_) {
    error_code error;
    const size_t used = parser_->put(asio::const_buffer(bytes.data(), bytes.size()), error);
    bytes.remove_prefix(used);
    if (ending_) return;
    if (error && error != http::error::need_more) {
      return finish(HttpEnd::kBroken, fmt::format("not HTTP/1.1: {}", error.message()));
    }
    if (parser_->is_done() && parser_->status() >= 200) return complete(bytes.size());
    if (parser_->is_done()) {  // an interim answer: the real one follows
      parser_ = std::make_unique<Parser>(*this);
    } else if (error) {
      break;
    }
  }
  input_ = bytes;
}

void HttpConnection::complete(size_t left) {
  if (!parser_->keep_alive() || left > 0 || !written_) close();
  finish(HttpEnd::kComplete, "");
}

void HttpConnection::close() {
  error_code ignored;
  socket_.close(ignored);
}

void HttpConnection::finish(HttpEnd end, std::string message) {
  ending_ = true;
  end_ = end;
  message_ = std::move(message);
  if (end != HttpEnd::kComplete) close();
}

void HttpConnection::settle() {
  if (!ending_ || pending_ > 0 || sink_ == nullptr) return;
  ending_ = false;
  if (std::exchange(again_, false)) return connect();
  HttpSink* sink = std::exchange(sink_, nullptr);
  parser_.reset();
  request_ = std::string();
  sink->on_end(end_, std::exchange(message_, ""), clock_.now_ns());
}

}  // namespace quern
