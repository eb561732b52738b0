// One connection: bytes in, requests out, answers back, within deadlines. Network thread only.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include <boost/asio/ip/tcp.hpp>

#include "serve/http_reader.h"
#include "serve/http_response.h"
#include "serve/tls.h"

namespace quern {

class ServerCore;

// Holds no buffer while it is idle. At most one request is read or answered at a time; what the
// client sends meanwhile waits, up to ServerOptions::max_pipelined_bytes.
class Connection {
 public:
  Connection(ServerCore& core, uint64_t id, boost::asio::ip::tcp::socket socket);
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  void start();

  uint64_t id() const { return id_; }

  const std::string& peer() const { return peer_; }

  // The call that is being answered, 0 when there is none.
  uint64_t call() const { return call_; }

  void set_call(uint64_t call) { call_ = call; }

  // How the current answer may be framed.
  BodyFraming stream_framing() const;

  // Sends a whole answer; `response` needs neither length nor framing.
  void respond(HttpResponse response, std::string_view body);

  // Sends the head of a stream, then its bytes, then its end.
  void begin_stream(HttpResponse response);
  void stream(std::string_view bytes);
  void end_stream();

  // Bytes that the client has not taken.
  size_t unsent() const { return out_.size() - out_at_; }

  // Goes on after an answer that did not come from within the reading of its request.
  void resume();

  // Looks at the deadlines.
  void sweep(int64_t now_ns);

  // Closes now if no request is being read or answered, else after the answer.
  void drain();

  // Closes without another byte.
  void close();

  bool closed() const { return phase_ == Phase::kClosed; }

  // Whether no handler refers to it any more.
  bool releasable() const { return closed() && waits_ == 0; }

 private:
  enum class Phase : uint8_t {
    kIdle,      // nothing of a request yet
    kHead,      // reading
    kBody,      // reading
    kCall,      // a request waits for its answer, or a stream goes on
    kAnswered,  // the answer is being sent
    kLinger,    // all is sent; what comes is thrown away until the client closes
    kClosed
  };

  bool reading() const {
    return phase_ == Phase::kIdle || phase_ == Phase::kHead || phase_ == Phase::kBody;
  }

  void arm_read();
  void arm_write();
  void on_readable();
  void receive(std::string_view bytes);
  void take_input(std::string_view plain);
  // Reads requests out of the input until one waits for its answer.
  void pump();
  void read_some();
  void on_request();
  void on_gone();  // the client
  void on_deadline();
  bool peer_gone();

  void enter(Phase phase, int64_t deadline_ms);
  void write_plain(std::string_view bytes);
  void flush();
  void on_flushed();
  void finish_answer();
  void begin_linger();

  ServerCore& core_;
  const uint64_t id_;
  boost::asio::ip::tcp::socket socket_;
  std::string peer_;
  std::unique_ptr<TlsSession> tls_;
  std::unique_ptr<HttpReader> reader_;  // while a request is being read
  std::string input_;                   // plain bytes that were not read yet
  std::string out_;                     // bytes for the wire
  size_t out_at_ = 0;                   // sent so far
  Phase phase_ = Phase::kIdle;
  int waits_ = 0;
  bool read_armed_ = false;
  bool write_armed_ = false;
  bool close_after_answer_ = false;
  bool http10_ = false;
  bool head_only_ = false;   // HEAD: no body follows
  bool peer_ended_ = false;  // it will send nothing more
  BodyFraming framing_ = BodyFraming::kLength;
  uint64_t call_ = 0;
  int64_t deadline_ns_ = 0;        // 0: none
  int64_t write_progress_ns_ = 0;  // when the client last took bytes
  size_t write_progress_bytes_ = 0;
};

}  // namespace quern
