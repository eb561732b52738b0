#include "serve/server_core.h"

#include <chrono>
#include <utility>

#include <boost/asio/ip/address.hpp>
#include <boost/asio/post.hpp>
#include <fmt/format.h>

namespace quern {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

constexpr int64_t kNsPerMs = 1'000'000;
constexpr auto kAcceptPause = std::chrono::milliseconds(100);  // when the system is out of sockets

// What a client gets that comes when max_connections are open.
constexpr std::string_view kFull =
    "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nContent-Length: 0\r\n"
    "Connection: close\r\n\r\n";

Result<asio::ip::address> parse_address(const std::string& host) {
  error_code error;
  const auto address = asio::ip::make_address(host == "localhost" ? "127.0.0.1" : host, error);
  if (error) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("host '{}': expected an IP address or localhost", host)};
  }
  return address;
}

}  // namespace

Result<Unit> check_exposure(const ServerOptions& options) {
  const asio::ip::address address = QUERN_TRY(parse_address(options.host));
  if (address.is_loopback()) return Unit{};
  if (options.keys != nullptr && options.tls != nullptr) return Unit{};
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("host {} is reachable from other machines: give --api-keys and "
                           "--tls-cert with --tls-key, or --insecure when a proxy guards it",
                           options.host)};
}

ServerCore::ServerCore(const ServerOptions& options,
                       const std::vector<ServedEngine>& engines,
                       ServerApi api,
                       const Clock& clock)
    : options_(options),
      api_(std::move(api)),
      clock_(clock),
      pool_(static_cast<size_t>(options.request_threads)) {
  for (const ServedEngine& served : engines) add_slot(served);
}

ServerCore::~ServerCore() {
  pool_.join();    // what it opens refers to calls
  loader_.join();  // what it frees refers to the server
  for (const auto& slot : slots_) slot->thread.reset();
}

int64_t ServerCore::unix_s() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

Result<Unit> ServerCore::listen() {
  const asio::ip::address address = QUERN_TRY(parse_address(options_.host));
  const tcp::endpoint endpoint(address, options_.port);
  error_code error;
  acceptor_.open(endpoint.protocol(), error);
  if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor_.bind(endpoint, error);
  if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
  if (error) {
    return Error{ErrorCode::kConflict, fmt::format("cannot listen on {}:{}: {}", options_.host,
                                                   options_.port, error.message())};
  }
  port_ = acceptor_.local_endpoint().port();
  return Unit{};
}

void ServerCore::run() {
  if (options_.signals == SignalHandling::kDrain) {
    signals_.add(SIGTERM);
    signals_.add(SIGINT);
    on_signal();
  }
  accept();
  tick();
  io_.run();
}

void ServerCore::on_signal() {
  signals_.async_wait([this](error_code error, int) {
    if (error) return;
    if (draining_) return io_.stop();
    begin_drain();
    on_signal();
  });
}

void ServerCore::drain_soon() {
  asio::post(io_, [this] { begin_drain(); });
}

void ServerCore::stop_soon() { io_.stop(); }

void ServerCore::accept() {
  acceptor_.async_accept([this](error_code error, tcp::socket socket) {
    if (!acceptor_.is_open()) return;
    if (!error) {
      on_accepted(std::move(socket));
      return accept();
    }
    // Out of file descriptors: trying again at once would only spin.
    accept_pause_.expires_after(kAcceptPause);
    accept_pause_.async_wait([this](error_code cancelled) {
      if (!cancelled && acceptor_.is_open()) accept();
    });
  });
}

void ServerCore::on_accepted(tcp::socket socket) {
  if (std::ssize(connections_) >= options_.max_connections) {
    for (const auto& slot : slots_) slot->metrics->rejected(Rejection::kConnections);
    error_code ignored;
    socket.non_blocking(true, ignored);
    if (options_.tls == nullptr) socket.write_some(asio::buffer(kFull), ignored);
    return;
  }
  const uint64_t id = ++last_id_;
  const auto added =
      connections_.emplace(id, std::make_unique<Connection>(*this, id, std::move(socket)));
  added.first->second->start();
}

void ServerCore::release_soon(uint64_t connection) {
  asio::post(io_, [this, connection] {
    const auto found = connections_.find(connection);
    if (found != connections_.end() && found->second->releasable()) connections_.erase(found);
  });
}

void ServerCore::tick() {
  ticker_.expires_after(std::chrono::milliseconds(options_.tick_ms));
  ticker_.async_wait([this](error_code error) {
    if (error) return;
    on_tick();
    if (!io_.stopped()) tick();
  });
}

void ServerCore::on_tick() {
  const int64_t now_ns = clock_.now_ns();
  for (const auto& [id, connection] : connections_) connection->sweep(now_ns);
  sweep_calls(now_ns);
  bool healthy = true;
  for (const auto& slot : slots_) healthy = healthy && !hangs(*slot, now_ns);
  if (healthy && options_.healthy) options_.healthy();
  cancel_unloading(now_ns);
  if (draining_) end_drain(now_ns);
}

// A stream that is silent for long carries a comment, so that nobody in between closes it.
void ServerCore::sweep_calls(int64_t now_ns) {
  std::vector<Call*> silent;
  for (const auto& [id, call] : calls_) {
    if (call->connection == nullptr || call->stage != Call::Stage::kRunning) continue;
    if (now_ns - call->last_write_ns < options_.deadlines.ping_ms * kNsPerMs) continue;
    if (call->exchange->streams()) silent.push_back(call.get());
  }
  for (Call* call : silent) {
    write_stream(*call, ": still here\n\n");
    if (call->connection != nullptr) call->connection->resume();
  }
}

bool ServerCore::hangs(const Slot& slot, int64_t now_ns) const {
  const EngineSnapshot engine = slot.thread->snapshot();
  return engine.failed || (engine.outstanding > 0 && now_ns - engine.progress_ns >=
                                                         options_.deadlines.watchdog_ms * kNsPerMs);
}

void ServerCore::begin_drain() {
  if (draining_) return;
  draining_ = true;
  drain_deadline_ns_ = clock_.now_ns() + options_.deadlines.drain_ms * kNsPerMs;
  error_code ignored;
  acceptor_.close(ignored);
  for (const auto& [id, connection] : connections_) connection->drain();
}

void ServerCore::end_drain(int64_t now_ns) {
  if (calls_.empty() && connections_.empty()) return io_.stop();
  if (now_ns < drain_deadline_ns_) return;
  const int64_t last_ns = drain_deadline_ns_ + options_.deadlines.linger_ms * kNsPerMs;
  if (now_ns >= last_ns) return io_.stop();
  std::vector<uint64_t> ids;
  for (const auto& [id, call] : calls_) ids.push_back(id);
  for (const uint64_t id : ids) {
    Call& call = *calls_.at(id);
    if (call.connection == nullptr) continue;
    cancel(call);
    fail_call(call, {.status = 503,
                     .type = "server_error",
                     .code = "shutting_down",
                     .message = "the server is shutting down and the call took too long"});
  }
}

Server::Server(std::unique_ptr<ServerCore> core) : core_(std::move(core)) {}

Server::~Server() = default;

Result<std::unique_ptr<Server>> Server::open(const ServerOptions& options,
                                             const std::vector<ServedEngine>& engines,
                                             ServerApi api,
                                             const Clock& clock) {
  auto core = std::make_unique<ServerCore>(options, engines, std::move(api), clock);
  QUERN_TRY(core->listen());
  return std::unique_ptr<Server>(new Server(std::move(core)));
}

uint16_t Server::port() const { return core_->port(); }

void Server::run() { core_->run(); }

void Server::drain() { core_->drain_soon(); }

void Server::stop() { core_->stop_soon(); }

}  // namespace quern
