// The HTTP server: one network thread between any number of connections and the engines.
//
// Threads: run() is the network thread and owns every connection and call; each engine has one; a
// small pool opens calls (parsing, templates, tokens, grammars), and one thread loads and frees
// models. They hand each other whole calls and batches of events and never wait for one another.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "serve/exchange.h"
#include "serve/http_reader.h"
#include "serve/log_writer.h"
#include "serve/model_host.h"
#include "serve/served_model.h"
#include "serve/server_keys.h"
#include "serve/tls.h"

namespace quern {

// What the server asks of the endpoints; api_router.h states the contracts. Any thread.
struct ServerApi {
  std::function<OpenedExchange(const ServedModels& models,
                               std::string_view method,
                               std::string_view path,
                               const ApiCall& call)>
      open;
  std::function<std::string(
      std::string_view path, const ApiError& error, std::string_view request_id)>
      error_body;
  std::function<std::string(std::string_view path)> allowed_methods;
};

struct ServerDeadlines {
  int64_t head_ms = 10'000;       // from a request's first byte to the end of its head
  int64_t body_ms = 30'000;       // from there to the end of its body
  int64_t idle_ms = 60'000;       // between requests
  int64_t write_ms = 30'000;      // for a client to take the next 4 KiB
  int64_t linger_ms = 2'000;      // for a client to close after our last byte
  int64_t ping_ms = 15'000;       // a stream that is silent for so long carries a comment
  int64_t queue_ms = 60'000;      // for a request to begin to run
  int64_t drain_ms = 30'000;      // for calls to end after drain()
  int64_t watchdog_ms = 120'000;  // a step that takes longer counts as an engine that hangs
};

// What may be read without a key when there are keys; the page, /live, /ready and /health always
// may.
enum class MetricsAccess : uint8_t { kWithKey, kPublic };

enum class SignalHandling : uint8_t { kNone, kDrain };  // SIGTERM and SIGINT drain, twice: stop

struct ServerOptions {
  std::string host = "127.0.0.1";  // an address or "localhost"
  uint16_t port = 8080;            // 0: any free one
  HttpLimits http;
  ServerDeadlines deadlines;
  int64_t max_connections = 10'000;
  int64_t max_queued = 256;           // calls being opened, and requests that wait for an engine
  size_t max_output_bytes = 1 << 20;  // a stream's unread bytes; more end it
  size_t max_pipelined_bytes = 64 << 10;
  int send_buffer_bytes = 256 << 10;  // of the kernel; 0: its own choice
  int64_t tick_ms = 250;              // how often deadlines are looked at
  int request_threads = 1;
  const ApiKeys* keys = nullptr;          // nullptr: everybody may call
  const TlsContext* tls = nullptr;        // nullptr: plain HTTP
  std::vector<std::string> cors_origins;  // "*": any
  MetricsAccess metrics = MetricsAccess::kWithKey;
  SignalHandling signals = SignalHandling::kNone;
  ModelHost* models = nullptr;  // loads and unloads models; nullptr: those of the start stay
  LogWriter* log = nullptr;     // one JSON object for each answer; nullptr: none
  // Told on the network thread whenever it has looked at the deadlines and no engine hangs.
  std::function<void()> healthy;
};

// Whether `host` may be listened on: addresses other than loopback need keys and TLS. Errors:
// kInvalidArgument naming what is missing, or a host that is no address.
Result<Unit> check_exposure(const ServerOptions& options);

class ServerCore;

class Server {
 public:
  // Listens; connections are served once run() is called. Borrows everything. Errors:
  // kInvalidArgument for a host that is no address, kConflict for an address that cannot be bound.
  static Result<std::unique_ptr<Server>> open(const ServerOptions& options,
                                              const std::vector<ServedEngine>& engines,
                                              ServerApi api,
                                              const Clock& clock);
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  ~Server();

  uint16_t port() const;

  // Serves until drained or stopped.
  void run();

  // Stops listening, answers what has come and returns from run(); calls that take longer than
  // drain_ms end with an error. Any thread.
  void drain();

  // Returns from run() without waiting for calls. Any thread.
  void stop();

 private:
  explicit Server(std::unique_ptr<ServerCore> core);

  std::unique_ptr<ServerCore> core_;
};

}  // namespace quern
