// What the connections share: options, calls, engines, metrics. Network thread only, but where
// stated.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>

#include "serve/api_error.h"
#include "serve/engine_thread.h"
#include "serve/http_response.h"
#include "serve/server.h"
#include "serve/server_call.h"
#include "serve/server_connection.h"
#include "serve/server_metrics.h"

namespace quern {

// A body that is there at once.
struct LocalAnswer {
  int status = 200;
  std::string content_type = "application/json";
  std::string_view body;
  std::vector<std::pair<std::string, std::string>> fields;
};

class ServerCore {
 public:
  ServerCore(const ServerOptions& options,
             const std::vector<ServedEngine>& engines,
             ServerApi api,
             const Clock& clock);
  ~ServerCore();

  Result<Unit> listen();
  uint16_t port() const { return port_; }
  void run();
  void drain_soon();  // any thread
  void stop_soon();   // any thread

  // For connections:
  const ServerOptions& options() const { return options_; }

  boost::asio::io_context& io() { return io_; }

  int64_t now_ns() const { return clock_.now_ns(); }

  static int64_t unix_s();

  bool draining() const { return draining_; }

  // Shared by all connections; valid until the next read.
  std::array<char, 64 << 10>& scratch() { return scratch_; }

  // Answers the request now or makes it a call.
  void handle(Connection& connection, HttpRequest&& request);

  // Answers a request that could not be read, and closes.
  void refuse(Connection& connection, const HttpFailure& failure);

  // The client of a call is gone.
  void abandon(uint64_t call);

  // Destroys the connection once no handler refers to it.
  void release_soon(uint64_t connection);

 private:
  // A model that is served. Stays as long as a call may refer to its model.
  struct Slot {
    uint64_t id = 0;
    ServedEngine served;
    std::unique_ptr<ModelMetrics> metrics;
    std::unique_ptr<EngineThread> thread;
    std::vector<EngineDelivery> deliveries;

    // Once it takes no more calls:
    bool unloading = false;
    int64_t drain_deadline_ns = 0;
    uint64_t unload_call = 0;  // that waits for the end
    int64_t cancelled_calls = 0;
  };

  // server_core.cc
  void accept();
  void on_accepted(boost::asio::ip::tcp::socket socket);
  void tick();
  void on_tick();
  void sweep_calls(int64_t now_ns);
  void on_signal();
  void begin_drain();
  void end_drain(int64_t now_ns);
  bool hangs(const Slot& slot, int64_t now_ns) const;

  // server_routes.cc
  RequestInfo request_info(const Connection& connection, const HttpRequest& request);
  std::string allowed_origin(const HttpRequest& request) const;
  bool foreign_origin(const HttpRequest& request) const;
  bool authenticated(const HttpRequest& request, RequestInfo& info) const;
  bool answer_locally(Connection& connection, const HttpRequest& request, const RequestInfo& info);
  void answer_preflight(Connection& connection, const RequestInfo& info);
  void answer_health(Connection& connection, const RequestInfo& info);
  void answer_metrics(Connection& connection, const RequestInfo& info);
  void respond(Connection& connection, const RequestInfo& info, const LocalAnswer& answer);
  void respond_error(Connection& connection, const RequestInfo& info, const ApiError& error);
  HttpResponse response_head(const RequestInfo& info, int status, std::string content_type) const;
  void log_answer(const RequestInfo& info, int status, const Call* call);

  // server_models.cc
  void add_slot(const ServedEngine& served);
  void list_models();
  bool may_administer(const RequestInfo& info) const;
  // Begins what the call asks for, which end_change() ends; or says why not.
  std::optional<ApiError> start_change(Call& call, ModelChange change);
  std::optional<ApiError> start_load(Call& call, ModelLoad load);
  std::optional<ApiError> start_unload(Call& call, const ModelUnload& unload);
  void on_load_ended(uint64_t call, const std::string& id, ApiResult<HostedModel> loaded);
  void on_unload_ended(uint64_t call, const std::string& id, int64_t cancelled_calls);
  void end_change(Call& call, const std::optional<ApiError>& error);
  bool is_used(const Slot& slot) const;
  void free_unused();
  void cancel_unloading(int64_t now_ns);

  // server_calls.cc
  void open_call(Connection& connection, HttpRequest&& request, RequestInfo&& info);
  void open_on_pool(const Call& call, uint64_t seed);
  void on_opened(uint64_t id, OpenedExchange opened);
  void start_requests(Call& call, std::vector<Request> requests);
  // Hands over what the engine may have of the call at once; false when it takes nothing.
  bool submit_more(Call& call);
  void go_on(Call& call);
  void drain_engine(uint64_t slot);
  void deliver(Slot& slot, EngineDelivery& delivery);
  void deliver_event(Slot& slot, Call& call, const EngineDelivery& delivery);
  void record_token(Slot& slot, Call& call, const EngineDelivery& delivery);
  void record_finished(Slot& slot, Call& call, const EngineDelivery& delivery);
  void write_stream(Call& call, std::string_view bytes);
  void end_call(Call& call);
  void fail_call(Call& call, ApiError error);
  void send_answer(Call& call, int status, std::string_view body);
  // Takes the connection from the call, whose answer is complete, and lets it go on.
  void detach(Call& call);
  void cancel(Call& call);
  void drop_call(uint64_t id);
  void reject(Call& call, Rejection reason, const std::string& message);
  Slot* find_slot(uint64_t id);
  Slot* slot_of(const ServedModel* model);
  int64_t queued() const;
  int retry_after();
  uint64_t random();

  const ServerOptions options_;
  const ServerApi api_;
  const Clock& clock_;
  boost::asio::io_context io_{1};
  boost::asio::ip::tcp::acceptor acceptor_{io_};
  boost::asio::steady_timer ticker_{io_};
  boost::asio::steady_timer accept_pause_{io_};
  boost::asio::signal_set signals_{io_};
  std::array<char, 64 << 10> scratch_;
  std::string frames_;  // of one event

  uint16_t port_ = 0;
  uint64_t last_id_ = 0;
  std::unordered_map<uint64_t, std::unique_ptr<Connection>> connections_;
  std::unordered_map<uint64_t, std::unique_ptr<Call>> calls_;
  std::unordered_set<uint64_t> touched_;  // connections with bytes of this batch
  int64_t opening_ = 0;
  bool draining_ = false;
  int64_t drain_deadline_ns_ = 0;
  std::map<int, int64_t> answers_;  // by status
  int64_t abandoned_ = 0;           // calls whose client went away

  EngineTurns turns_;
  std::vector<std::unique_ptr<Slot>> slots_;
  ServedModels models_;             // those that take calls
  std::set<std::string> changing_;  // ids of models that are being loaded or freed
  boost::asio::thread_pool pool_;
  boost::asio::thread_pool loader_{1};
};

}  // namespace quern
