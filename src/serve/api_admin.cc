// POST /admin/models/load and /admin/models/unload.
#include <utility>

#include "serve/api_endpoints.h"
#include "serve/api_exchange.h"
#include "serve/api_fields.h"
#include "serve/api_json.h"

namespace quern {
namespace {

constexpr int64_t kMaxModelBytes = 4096;      // of a path
constexpr int64_t kDefaultDrainSeconds = 30;  // as when the server ends
constexpr int64_t kMaxBytes = int64_t{1} << 50;

// Waits for the change that it asks for.
class ChangeExchange final : public Exchange {
 public:
  ChangeExchange(std::string id, ModelChange change)
      : change_(std::move(change)), body_({{"id", std::move(id)}}) {}

  ModelChange take_change() override { return std::move(change_); }

  std::vector<Request> take_requests() override { return {}; }

  bool streams() const override { return false; }

  void on_event(size_t, const Event&, std::string&) override {}

  void on_loaded(const ModelSize& size) override {
    body_["context"] = size.context;
    body_["max_sequences"] = size.max_sequences;
    body_["kv_cache_tokens"] = size.kv_cache_tokens;
    body_["weights_bytes"] = size.weights_bytes;
    body_["kv_cache_bytes"] = size.kv_cache_bytes;
    body_["scratch_bytes"] = size.scratch_bytes;
    body_["total_bytes"] = size.total_bytes();
  }

  void on_unloaded(int64_t cancelled_calls) override { body_["cancelled_calls"] = cancelled_calls; }

  void end(std::string& out) override { out += dump(body_); }

  std::string error(const ApiError& error) const override { return dump(openai_error_json(error)); }

  int status() const override { return 200; }

 private:
  ModelChange change_;
  OrderedJson body_;
};

std::optional<int64_t> optional_integer(const OrderedJson& body, std::string_view key) {
  const OrderedJson* found = find(body, key);
  return found == nullptr ? std::nullopt : std::optional<int64_t>(as_integer(*found));
}

}  // namespace

Schema load_request_schema() {
  return object_schema(
      {required("model", described(string_schema(1, kMaxModelBytes),
                                   "A directory, a GGUF file or a fetched name.")),
       {"id", described(string_schema(1, kMaxIdBytes), "What requests call it; else its name.")},
       {"context", described(integer_schema(1, 1 << 30), "Most tokens of one request.")},
       {"max_sequences", described(integer_schema(1, 4096), "Requests computed at once.")},
       {"kv_cache_bytes", integer_schema(1, kMaxBytes)}});
}

Schema load_response_schema() {
  const Schema count = integer_schema(0, INT64_MAX);
  return object_schema({required("id", string_schema()), required("context", count),
                        required("max_sequences", count), required("kv_cache_tokens", count),
                        required("weights_bytes", count), required("kv_cache_bytes", count),
                        required("scratch_bytes", count), required("total_bytes", count)});
}

OpenedExchange open_load(const CheckedCall& call) {
  ModelLoad load{.model = text_or(call.body, "model", "")};
  load.id = text_or(call.body, "id", default_model_id(load.model));
  load.context = optional_integer(call.body, "context");
  load.max_sequences = optional_integer(call.body, "max_sequences");
  if (const auto bytes = optional_integer(call.body, "kv_cache_bytes")) {
    load.kv_cache_bytes = static_cast<uint64_t>(*bytes);
  }
  std::string id = load.id;
  return std::make_unique<ChangeExchange>(std::move(id), std::move(load));
}

Schema unload_request_schema() {
  return object_schema(
      {required("model", described(string_schema(1, kMaxModelBytes), "What requests call it.")),
       {"drain_seconds", described(integer_schema(0, 86'400), "What its calls get to end; 30.")}});
}

Schema unload_response_schema() {
  return object_schema({required("id", string_schema()),
                        required("cancelled_calls",
                                 described(integer_schema(0, INT64_MAX), "That took too long."))});
}

OpenedExchange open_unload(const CheckedCall& call) {
  ModelUnload unload{.id = text_or(call.body, "model", "")};
  unload.drain_ms = integer_or(call.body, "drain_seconds", kDefaultDrainSeconds) * 1000;
  std::string id = unload.id;
  return std::make_unique<ChangeExchange>(std::move(id), std::move(unload));
}

}  // namespace quern
