// Models that come and go while the server runs: loaded and freed on a thread of their own, listed
// and taken off the list on the network thread.
#include <algorithm>
#include <exception>
#include <new>
#include <utility>

#include <boost/asio/ip/address.hpp>
#include <boost/asio/post.hpp>
#include <fmt/format.h>

#include "serve/api_error.h"
#include "serve/server_core.h"

namespace quern {
namespace {

namespace asio = boost::asio;

constexpr size_t kMaxChanges = 16;  // that wait or run

ApiError conflict(std::string message) {
  return {.status = 409,
          .type = "conflict_error",
          .code = "conflict",
          .param = "model",
          .message = std::move(message)};
}

ApiError load_error(const Error& error) {
  ApiError answer{.type = "invalid_request_error", .param = "model", .message = error.message};
  if (error.code == ErrorCode::kNotFound) {
    answer.status = 404;
    answer.code = "model_not_found";
  } else if (error.code == ErrorCode::kUnsupported) {
    answer.code = "unsupported_model";
  } else if (error.code == ErrorCode::kExhausted) {
    answer.status = 507;
    answer.type = "server_error";
    answer.code = "insufficient_memory";
  }
  return answer;
}

// On the loader's thread. What the world does wrong becomes an error of the one call.
ApiResult<HostedModel> load_on(ModelHost& host, const ModelLoad& load) {
  try {
    Result<HostedModel> loaded = host.load(load);
    if (!loaded) return load_error(loaded.error());
    return *loaded;
  } catch (const std::bad_alloc&) {
    return load_error({ErrorCode::kExhausted, load.model + ": out of memory"});
  } catch (const std::exception& error) {
    return server_error(error.what());
  }
}

}  // namespace

void ServerCore::add_slot(const ServedEngine& served) {
  auto slot = std::make_unique<Slot>();
  slot->id = ++last_id_;
  slot->served = served;
  slot->metrics = std::make_unique<ModelMetrics>();
  const auto wake = [this, id = slot->id] { asio::post(io_, [this, id] { drain_engine(id); }); };
  slot->thread = std::make_unique<EngineThread>(
      *served.engine, clock_, &turns_,
      EngineThreadOptions{.max_inbox = options_.max_queued, .max_sequences = served.max_sequences},
      wake);
  slots_.push_back(std::move(slot));
  list_models();
}

void ServerCore::list_models() {
  models_.models.clear();
  for (const auto& slot : slots_) {
    if (!slot->unloading) models_.models.push_back(slot->served.model);
  }
}

// Without keys whoever can connect may do everything, if only this machine can.
bool ServerCore::may_administer(const RequestInfo& info) const {
  if (options_.keys != nullptr) return info.role == KeyRole::kAdmin;
  boost::system::error_code error;
  return options_.host == "localhost" || asio::ip::make_address(options_.host, error).is_loopback();
}

std::optional<ApiError> ServerCore::start_change(Call& call, ModelChange change) {
  if (options_.models == nullptr) {
    return ApiError{.status = 403,
                    .type = "permission_error",
                    .message = "this server keeps the models that it was started with"};
  }
  if (changing_.size() >= kMaxChanges) {
    return ApiError{.status = 503,
                    .type = "server_error",
                    .code = "overloaded",
                    .message = "other models are being loaded; try again",
                    .retry_after_seconds = retry_after()};
  }
  if (auto* load = std::get_if<ModelLoad>(&change)) return start_load(call, std::move(*load));
  return start_unload(call, std::get<ModelUnload>(change));
}

std::optional<ApiError> ServerCore::start_load(Call& call, ModelLoad load) {
  const auto has_id = [&](const auto& slot) { return slot->served.model->id == load.id; };
  if (std::any_of(slots_.begin(), slots_.end(), has_id)) {
    return conflict(
        fmt::format("a model {} is being served; unload it or give another id", load.id));
  }
  if (!changing_.insert(load.id).second) {
    return conflict(fmt::format("model {} is being loaded or unloaded", load.id));
  }
  asio::post(loader_, [this, id = call.id, load = std::move(load)] {
    ApiResult<HostedModel> loaded = load_on(*options_.models, load);
    asio::post(io_, [this, id, model = load.id, loaded = std::move(loaded)]() mutable {
      on_load_ended(id, model, std::move(loaded));
    });
  });
  return std::nullopt;
}

void ServerCore::on_load_ended(uint64_t id,
                               const std::string& model,
                               ApiResult<HostedModel> loaded) {
  changing_.erase(model);
  Call& call = *calls_.at(id);
  if (!loaded) return end_change(call, loaded.error());
  add_slot(loaded->served);
  call.exchange->on_loaded(loaded->size);
  end_change(call, std::nullopt);
}

std::optional<ApiError> ServerCore::start_unload(Call& call, const ModelUnload& unload) {
  const auto found = std::find_if(slots_.begin(), slots_.end(), [&](const auto& slot) {
    return slot->served.model->id == unload.id;
  });
  if (found == slots_.end() || (*found)->unloading) {
    if (changing_.contains(unload.id)) {
      return conflict(fmt::format("model {} is being loaded or unloaded", unload.id));
    }
    return ApiError{.status = 404,
                    .type = "invalid_request_error",
                    .code = "model_not_found",
                    .param = "model",
                    .message = fmt::format("no model {} is served", unload.id)};
  }
  changing_.insert(unload.id);
  Slot& slot = **found;
  slot.unloading = true;
  slot.drain_deadline_ns = now_ns() + unload.drain_ms * 1'000'000;
  slot.unload_call = call.id;
  list_models();
  asio::post(io_, [this] {
    cancel_unloading(now_ns());
    free_unused();
  });
  return std::nullopt;
}

// Calls that are being opened may come to refer to any model that was served when they came.
bool ServerCore::is_used(const Slot& slot) const {
  const ServedModel* model = slot.served.model;
  return std::any_of(calls_.begin(), calls_.end(), [&](const auto& entry) {
    const Call& call = *entry.second;
    const auto& may_name = call.models.models;
    return std::find(may_name.begin(), may_name.end(), model) != may_name.end() ||
           (call.exchange != nullptr && call.exchange->model() == model);
  });
}

void ServerCore::free_unused() {
  for (size_t i = slots_.size(); i-- > 0;) {
    if (!slots_[i]->unloading || is_used(*slots_[i])) continue;
    std::unique_ptr<Slot> slot = std::move(slots_[i]);
    slots_.erase(slots_.begin() + static_cast<std::ptrdiff_t>(i));
    asio::post(loader_, [this, slot = std::move(slot)] {
      slot->thread.reset();
      const std::string model = slot->served.model->id;
      options_.models->unload(*slot->served.model);
      asio::post(io_, [this, model, id = slot->unload_call, cancelled = slot->cancelled_calls] {
        on_unload_ended(id, model, cancelled);
      });
    });
  }
}

void ServerCore::on_unload_ended(uint64_t id, const std::string& model, int64_t cancelled_calls) {
  changing_.erase(model);
  Call& call = *calls_.at(id);
  call.exchange->on_unloaded(cancelled_calls);
  end_change(call, std::nullopt);
}

void ServerCore::end_change(Call& call, const std::optional<ApiError>& error) {
  Connection* connection = call.connection;
  if (error) {
    fail_call(call, *error);
  } else if (connection != nullptr) {
    end_call(call);
  }
  drop_call(call.id);
  if (connection != nullptr) connection->resume();
}

// Ends the calls of models whose time to drain is over.
void ServerCore::cancel_unloading(int64_t now_ns) {
  std::vector<Call*> late;
  for (const auto& slot : slots_) {
    if (!slot->unloading || now_ns < slot->drain_deadline_ns) continue;
    for (const auto& [id, call] : calls_) {
      const bool runs = call->slot == slot->id && call->connection != nullptr;
      if (!runs || call->remaining == 0) continue;
      ++slot->cancelled_calls;
      late.push_back(call.get());
    }
  }
  for (Call* call : late) {
    Connection* connection = call->connection;
    cancel(*call);
    fail_call(*call, {.status = 503,
                      .type = "server_error",
                      .code = "model_unloaded",
                      .message = "the model is being unloaded and the call took too long"});
    connection->resume();
  }
}

}  // namespace quern
