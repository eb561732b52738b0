// One API call between HTTP and the engine: a body in, requests to run, their events, bytes out.
//
// An exchange knows nothing of sockets or threads, so that every endpoint is tested as a function.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/request.h"

namespace quern {

struct ServedModel;

// What a call is refused with. The wire form is the endpoint's own (OpenAI nests it in "error",
// Anthropic beside "type":"error").
struct ApiError {
  int status = 400;             // HTTP
  std::string type = {};        // "invalid_request_error", "rate_limit_error", ...
  std::string code = {};        // machine-readable, may be empty
  std::string param = {};       // the field at fault, may be empty
  std::string message = {};     // names the field, its value and what would be right
  int retry_after_seconds = 0;  // 0: no such header
};

// A call as HTTP hands it over.
struct ApiCall {
  std::string_view body;
  std::string_view request_id;  // "req-..."; ids of answers are derived from it
  int64_t created_unix_s = 0;   // of the answer
  uint64_t seed = 0;            // for requests that bring none
};

// A model that is to be served as well. What is not set is as the server was started.
struct ModelLoad {
  std::string model;    // a directory, a GGUF file or a fetched name
  std::string id = {};  // what requests are to call it
  std::optional<int64_t> context = {};
  std::optional<int64_t> max_sequences = {};
  std::optional<uint64_t> kv_cache_bytes = {};
};

// A model that is to be served no longer.
struct ModelUnload {
  std::string id;
  int64_t drain_ms = 0;  // what its calls get to end
};

// What a call asks of the server itself; most ask nothing.
using ModelChange = std::variant<std::monostate, ModelLoad, ModelUnload>;

// What a served model takes; never exceeded.
struct ModelSize {
  int64_t context = 0;
  int64_t max_sequences = 0;
  int64_t kv_cache_tokens = 0;
  uint64_t weights_bytes = 0;
  uint64_t kv_cache_bytes = 0;
  uint64_t scratch_bytes = 0;  // activations, logits and hidden states of one step

  uint64_t total_bytes() const { return weights_bytes + kv_cache_bytes + scratch_bytes; }
};

// The life of a call: requests() once; then, when they have been accepted, every event of each;
// then end(). Not thread-safe: one thread at a time.
class Exchange {
 public:
  Exchange() = default;
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;
  virtual ~Exchange() = default;

  // The model whose engine runs the requests; nullptr when there are none.
  virtual const ServedModel* model() const { return nullptr; }

  // What the engine is to run, one for each answer ("choice"); moved out. May be empty: the answer
  // needs no model (counting tokens), and end() follows.
  virtual std::vector<Request> take_requests() = 0;

  // What the server is to do, moved out; then there are no requests, and one of the two functions
  // below and end() follow once it is done.
  virtual ModelChange take_change() { return {}; }

  virtual void on_loaded(const ModelSize&) {}

  virtual void on_unloaded(int64_t /*cancelled_calls*/) {}

  // Whether the answer is a stream of server-sent events.
  virtual bool streams() const = 0;

  // Appends what the client is to read now; nothing unless it streams. `index` counts the requests.
  virtual void on_event(size_t index, const Event& event, std::string& out) = 0;

  // After the last event: appends the JSON body or, in a stream, its last frames. A stream whose
  // answer failed before it had written anything (no on_event appended a byte) has a JSON body with
  // the error instead, and status() is not 200.
  virtual void end(std::string& out) = 0;

  // The wire form of an error: the frames that end a stream that has written something, else a JSON
  // body.
  virtual std::string error(const ApiError& error) const = 0;

  // The status of a body from end(): 200 unless the answer failed. Known before end().
  virtual int status() const = 0;
};

using OpenedExchange = std::variant<std::unique_ptr<Exchange>, ApiError>;

}  // namespace quern
