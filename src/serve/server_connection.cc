#include "serve/server_connection.h"

#include <algorithm>
#include <utility>

#include <boost/asio/buffer.hpp>
#include <poll.h>

#include "serve/server_core.h"

namespace quern {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

constexpr size_t kProgressBytes = 4 << 10;  // a slower client counts as one that reads nothing
constexpr size_t kKeptBytes = 16 << 10;     // of a buffer between answers

}  // namespace

Connection::Connection(ServerCore& core, uint64_t id, tcp::socket socket)
    : core_(core), id_(id), socket_(std::move(socket)) {
  error_code error;
  const tcp::endpoint peer = socket_.remote_endpoint(error);
  if (!error) peer_ = peer.address().to_string();
}

void Connection::start() {
  const ServerOptions& options = core_.options();
  error_code error;
  socket_.non_blocking(true, error);
  if (!error) socket_.set_option(tcp::no_delay(true), error);
  if (!error && options.send_buffer_bytes > 0) {
    socket_.set_option(asio::socket_base::send_buffer_size(options.send_buffer_bytes), error);
  }
  if (error) return close();
  if (options.tls != nullptr) tls_ = std::make_unique<TlsSession>(*options.tls);
  enter(Phase::kIdle, tls_ ? options.deadlines.head_ms : options.deadlines.idle_ms);
  arm_read();
}

BodyFraming Connection::stream_framing() const {
  return http10_ ? BodyFraming::kUntilClose : BodyFraming::kChunked;
}

void Connection::respond(HttpResponse response, std::string_view body) {
  if (closed()) return;
  response.framing = BodyFraming::kLength;
  response.length = body.size();
  close_after_answer_ |= response.after == AfterAnswer::kClose;
  response.after = close_after_answer_ ? AfterAnswer::kClose : AfterAnswer::kKeepAlive;
  std::string bytes;
  append_head(response, bytes);
  if (!head_only_) bytes += body;
  write_plain(bytes);
  finish_answer();
}

void Connection::begin_stream(HttpResponse response) {
  if (closed()) return;
  framing_ = stream_framing();
  close_after_answer_ |= framing_ == BodyFraming::kUntilClose;
  response.framing = framing_;
  response.after = close_after_answer_ ? AfterAnswer::kClose : AfterAnswer::kKeepAlive;
  std::string bytes;
  append_head(response, bytes);
  write_plain(bytes);
}

void Connection::stream(std::string_view bytes) {
  if (closed()) return;
  if (framing_ == BodyFraming::kUntilClose) return write_plain(bytes);
  std::string chunk;
  append_chunk(bytes, chunk);
  write_plain(chunk);
}

void Connection::end_stream() {
  if (closed()) return;
  if (framing_ == BodyFraming::kChunked) {
    std::string chunk;
    append_last_chunk(chunk);
    write_plain(chunk);
  }
  finish_answer();
}

void Connection::finish_answer() {
  if (closed()) return;
  enter(Phase::kAnswered, 0);
  flush();
}

void Connection::resume() {
  flush();
  pump();
}

void Connection::arm_read() {
  if (closed() || read_armed_ || peer_ended_) return;
  if (!reading() && input_.size() >= core_.options().max_pipelined_bytes) return;
  read_armed_ = true;
  ++waits_;
  socket_.async_wait(tcp::socket::wait_read, [this](error_code error) {
    --waits_;
    read_armed_ = false;
    if (!error && !closed()) on_readable();
    if (releasable()) core_.release_soon(id_);
  });
}

void Connection::arm_write() {
  if (closed() || write_armed_) return;
  write_armed_ = true;
  ++waits_;
  socket_.async_wait(tcp::socket::wait_write, [this](error_code error) {
    --waits_;
    write_armed_ = false;
    if (!error && !closed()) resume();
    if (releasable()) core_.release_soon(id_);
  });
}

void Connection::on_readable() {
  error_code error;
  const size_t count = socket_.read_some(asio::buffer(core_.scratch()), error);
  if (error == asio::error::would_block) return arm_read();
  if (error) return on_gone();
  receive({core_.scratch().data(), count});
  arm_read();
}

void Connection::receive(std::string_view bytes) {
  if (!tls_) return take_input(bytes);
  std::string plain;
  const bool ok = tls_->receive(bytes, plain);
  tls_->take_output(out_);
  flush();
  if (!ok) return on_gone();
  if (!plain.empty()) take_input(plain);
  if (tls_->peer_closed()) on_gone();
}

void Connection::take_input(std::string_view plain) {
  if (closed() || phase_ == Phase::kLinger) return;
  input_ += plain;
  pump();
}

void Connection::pump() {
  while (reading() && !input_.empty()) read_some();
  if (phase_ == Phase::kIdle && input_.empty()) input_ = std::string();
  arm_read();
}

void Connection::read_some() {
  const ServerOptions& options = core_.options();
  if (!reader_) reader_ = std::make_unique<HttpReader>(options.http);
  input_.erase(0, reader_->feed(input_));
  if (phase_ == Phase::kIdle && reader_->started()) {
    enter(Phase::kHead, options.deadlines.head_ms);
  }
  switch (reader_->state()) {
    case HttpReader::State::kHead:
      return;
    case HttpReader::State::kBody:
      if (phase_ == Phase::kBody) return;
      enter(Phase::kBody, options.deadlines.body_ms);
      if (reader_->request().expects_continue && input_.empty()) {
        write_plain("HTTP/1.1 100 Continue\r\n\r\n");
        flush();
      }
      return;
    case HttpReader::State::kComplete:
      return on_request();
    case HttpReader::State::kFailed: {
      const HttpFailure failure = reader_->failure();
      reader_.reset();
      return core_.refuse(*this, failure);
    }
  }
}

void Connection::on_request() {
  HttpRequest request = std::move(reader_->request());
  reader_.reset();
  head_only_ = request.method == "HEAD";
  http10_ = request.minor_version == 0;
  close_after_answer_ = !request.keep_alive || core_.draining();
  enter(Phase::kCall, 0);
  core_.handle(*this, std::move(request));
}

void Connection::on_gone() {
  peer_ended_ = true;
  if (phase_ == Phase::kAnswered) {
    // It may have closed its side alone and still read the answer.
    close_after_answer_ = true;
    input_.clear();
    return;
  }
  if (call_ != 0) core_.abandon(std::exchange(call_, 0));
  close();
}

void Connection::sweep(int64_t now_ns) {
  if (closed()) return;
  if (deadline_ns_ != 0 && now_ns >= deadline_ns_) return on_deadline();
  const int64_t write_ns = core_.options().deadlines.write_ms * 1'000'000;
  const bool stalled = unsent() > 0 && now_ns - write_progress_ns_ >= write_ns;
  const bool unseen = phase_ == Phase::kCall && !read_armed_ && peer_gone();
  if (!stalled && !unseen) return;
  if (call_ != 0) core_.abandon(std::exchange(call_, 0));
  close();
}

void Connection::on_deadline() {
  if (phase_ != Phase::kHead && phase_ != Phase::kBody) return close();
  const char* what = phase_ == Phase::kHead ? "the head" : "the body";
  reader_.reset();
  core_.refuse(*this, {408, std::string(what) + " of the request did not arrive in time"});
}

// Whether the client has closed, told without reading.
bool Connection::peer_gone() {
  pollfd wanted{socket_.native_handle(), POLLRDHUP, 0};
  return poll(&wanted, 1, 0) > 0 && (wanted.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

void Connection::drain() {
  if (phase_ == Phase::kIdle) return close();
  close_after_answer_ = true;
}

void Connection::close() {
  if (closed()) return;
  phase_ = Phase::kClosed;
  error_code ignored;
  socket_.close(ignored);
  input_ = std::string();
  out_ = std::string();
  out_at_ = 0;
  if (releasable()) core_.release_soon(id_);
}

void Connection::enter(Phase phase, int64_t deadline_ms) {
  phase_ = phase;
  deadline_ns_ = deadline_ms == 0 ? 0 : core_.now_ns() + deadline_ms * 1'000'000;
}

void Connection::write_plain(std::string_view bytes) {
  if (!tls_) {
    out_ += bytes;
    return;
  }
  if (!tls_->send(bytes)) return close();
  tls_->take_output(out_);
}

void Connection::flush() {
  while (!closed() && unsent() > 0) {
    error_code error;
    const size_t count = socket_.write_some(asio::buffer(out_) + out_at_, error);
    if (error == asio::error::would_block) {
      if (write_progress_ns_ == 0) write_progress_ns_ = core_.now_ns();
      return arm_write();
    }
    if (error) {
      if (call_ != 0) core_.abandon(std::exchange(call_, 0));
      return close();
    }
    out_at_ += count;
    write_progress_bytes_ += count;
    if (write_progress_bytes_ >= kProgressBytes) {
      write_progress_bytes_ = 0;
      write_progress_ns_ = core_.now_ns();
    }
  }
  if (!closed()) on_flushed();
}

void Connection::on_flushed() {
  out_at_ = 0;
  out_.clear();
  if (out_.capacity() > kKeptBytes || phase_ != Phase::kCall) out_ = std::string();
  write_progress_ns_ = 0;
  write_progress_bytes_ = 0;
  if (phase_ != Phase::kAnswered) return;
  if (close_after_answer_) return begin_linger();
  enter(Phase::kIdle, core_.options().deadlines.idle_ms);
}

void Connection::begin_linger() {
  // Closing with unread bytes would reset the connection and may take the answer with it.
  enter(Phase::kLinger, core_.options().deadlines.linger_ms);
  input_ = std::string();
  error_code ignored;
  if (tls_) {
    tls_->shutdown();
    std::string farewell;
    tls_->take_output(farewell);
    socket_.write_some(asio::buffer(farewell), ignored);
  }
  socket_.shutdown(tcp::socket::shutdown_send, ignored);
  if (peer_ended_) return close();
  arm_read();
}

}  // namespace quern
