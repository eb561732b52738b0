// The life of a call: opened on the pool, run by an engine, answered on its connection.
#include <algorithm>
#include <chrono>
#include <exception>
#include <stdexcept>
#include <utility>

#include <boost/asio/post.hpp>
#include <fmt/format.h>
#include <openssl/rand.h>

#include "serve/server_core.h"

namespace quern {
namespace {

namespace asio = boost::asio;

constexpr int kClientGone = 499;          // as logs say it; never sent
constexpr size_t kRequestsTogether = 64;  // of one call, that an engine has at once

ApiError internal_error(std::string message) {
  return {.status = 500, .type = "server_error", .message = std::move(message)};
}

// What an engine says of a request that it did not take.
ApiError refusal(const Error& error) {
  if (error.code == ErrorCode::kInvalidArgument) {
    return {.type = "invalid_request_error", .message = error.message};
  }
  return {.status = 503, .type = "server_error", .code = "overloaded", .message = error.message};
}

double seconds(int64_t from_ns, int64_t to_ns) {
  return static_cast<double>(to_ns - from_ns) * 1e-9;
}

}  // namespace

uint64_t ServerCore::random() {
  uint64_t bits = 0;
  if (RAND_bytes(reinterpret_cast<unsigned char*>(&bits), sizeof(bits)) != 1) {
    throw std::runtime_error("no random numbers from OpenSSL");
  }
  return bits;
}

// One to three seconds, so that those who were refused together do not come back together.
int ServerCore::retry_after() { return 1 + static_cast<int>(random() % 3); }

int64_t ServerCore::queued() const {
  int64_t count = opening_;
  for (const auto& slot : slots_) {
    const EngineSnapshot engine = slot->thread->snapshot();
    count += engine.inbox + engine.stats.waiting;
  }
  return count;
}

ServerCore::Slot* ServerCore::find_slot(uint64_t id) {
  const auto found =
      std::find_if(slots_.begin(), slots_.end(), [&](const auto& slot) { return slot->id == id; });
  return found == slots_.end() ? nullptr : found->get();
}

ServerCore::Slot* ServerCore::slot_of(const ServedModel* model) {
  const auto found = std::find_if(slots_.begin(), slots_.end(),
                                  [&](const auto& slot) { return slot->served.model == model; });
  return found == slots_.end() ? nullptr : found->get();
}

void ServerCore::open_call(Connection& connection, HttpRequest&& request, RequestInfo&& info) {
  const uint64_t id = ++last_id_;
  Call& call = *calls_.emplace(id, std::make_unique<Call>()).first->second;
  call.id = id;
  call.info = std::move(info);
  call.body = std::move(request.body);
  call.models = models_;
  call.connection = &connection;
  call.last_write_ns = now_ns();
  connection.set_call(id);
  if (draining_ || queued() >= options_.max_queued) {
    reject(call, draining_ ? Rejection::kDraining : Rejection::kQueueFull,
           draining_ ? "the server is shutting down" : "the server is busy; try again");
    return drop_call(id);
  }
  ++opening_;
  const uint64_t seed = random();
  asio::post(pool_, [this, &call, seed] { open_on_pool(call, seed); });
}

// On a thread of the pool, which the call waits for: nobody else touches it but for its connection.
void ServerCore::open_on_pool(const Call& call, uint64_t seed) {
  OpenedExchange opened = internal_error("the call could not be read; the log says why");
  std::string failure;
  try {
    const std::string_view method = call.info.method;
    opened = api_.open(
        call.models, method, call.info.path,
        {.body = call.body, .request_id = call.info.id, .created_unix_s = unix_s(), .seed = seed});
  } catch (const std::exception& error) {
    failure = error.what();
  }
  asio::post(io_, [this, id = call.id, opened = std::move(opened), failure]() mutable {
    calls_.at(id)->error = std::move(failure);
    on_opened(id, std::move(opened));
  });
}

void ServerCore::on_opened(uint64_t id, OpenedExchange opened) {
  --opening_;
  Call& call = *calls_.at(id);
  call.stage = Call::Stage::kRunning;
  call.body = std::string();
  call.models = {};
  if (call.connection == nullptr) return drop_call(id);
  Connection& connection = *call.connection;
  if (auto* error = std::get_if<ApiError>(&opened)) {
    fail_call(call, *error);
    drop_call(id);
    return connection.resume();
  }
  call.exchange = std::move(std::get<std::unique_ptr<Exchange>>(opened));
  try {
    ModelChange change = call.exchange->take_change();
    std::vector<Request> requests = call.exchange->take_requests();
    if (!std::holds_alternative<std::monostate>(change)) {
      call.stage = Call::Stage::kChanging;
      const auto refused = start_change(call, std::move(change));
      if (!refused) return;
      fail_call(call, *refused);
    } else if (requests.empty()) {
      end_call(call);
    } else {
      start_requests(call, std::move(requests));
    }
  } catch (const std::exception& error) {
    call.error = error.what();
    fail_call(call, internal_error("the answer could not be written"));
  }
  if (call.remaining == 0) drop_call(id);
  connection.resume();
}

void ServerCore::start_requests(Call& call, std::vector<Request> requests) {
  Slot* slot = slot_of(call.exchange->model());
  if (slot == nullptr) return fail_call(call, internal_error("no engine runs this model"));
  call.slot = slot->id;
  for (const Request& request : requests) {
    call.answers.push_back({.max_tokens = request.max_tokens});
  }
  if (slot->thread->snapshot().failed) {
    return fail_call(call, internal_error("the engine has failed"));
  }
  call.requests = std::move(requests);
  call.remaining = call.requests.size();
  if (submit_more(call)) return;
  cancel(call);
  reject(call, Rejection::kQueueFull, "the server is busy; try again");
}

bool ServerCore::submit_more(Call& call) {
  EngineThread& thread = *find_slot(call.slot)->thread;
  const size_t most =
      std::min(kRequestsTogether, static_cast<size_t>(options_.max_queued)) - call.running();
  const size_t first = call.handed_over;
  const size_t count = std::min(most, call.requests.size() - first);
  const EngineSnapshot engine = thread.snapshot();
  const int64_t queued = engine.inbox + engine.stats.waiting + static_cast<int64_t>(count);
  if (count == 0 || queued > options_.max_queued) return false;
  std::vector<Request> requests;
  for (size_t i = first; i < first + count; ++i) {
    requests.push_back(std::move(call.requests[i]));
    requests.back().deadline_ns = now_ns() + options_.deadlines.queue_ms * 1'000'000;
  }
  call.handed_over += count;
  if (thread.submit(call.id, std::move(requests), first)) return true;
  call.remaining -= count;  // the thread has failed and will not tell of them
  return false;
}

// After one of its requests has ended.
void ServerCore::go_on(Call& call) {
  const bool has_more = call.handed_over < call.requests.size();
  if (!has_more || submit_more(call) || call.running() > 0) return;
  cancel(call);
  reject(call, Rejection::kQueueFull, "the server is busy; try again");
}

void ServerCore::drain_engine(uint64_t slot_id) {
  Slot* drained = find_slot(slot_id);
  if (drained == nullptr) return;  // freed meanwhile
  Slot& slot = *drained;
  slot.deliveries.clear();
  slot.thread->take(slot.deliveries);
  for (EngineDelivery& delivery : slot.deliveries) deliver(slot, delivery);
  // Each connection is written to once a batch, however many tokens it gets.
  for (const uint64_t id : std::exchange(touched_, {})) {
    const auto found = connections_.find(id);
    if (found != connections_.end() && !found->second->closed()) found->second->resume();
  }
}

void ServerCore::deliver(Slot& slot, EngineDelivery& delivery) {
  const auto found = calls_.find(delivery.call);
  if (found == calls_.end()) return;
  Call& call = *found->second;
  if (call.connection != nullptr) touched_.insert(call.connection->id());
  if (const auto* error = std::get_if<Error>(&delivery.what)) {
    call.remaining = 0;
    ApiError refused = refusal(*error);
    if (refused.status == 503) {
      slot.metrics->rejected(Rejection::kQueueFull);
      refused.retry_after_seconds = retry_after();
    }
    fail_call(call, std::move(refused));
    return drop_call(call.id);
  }
  try {
    deliver_event(slot, call, delivery);
  } catch (const std::exception& error) {
    call.error = error.what();
    cancel(call);
    fail_call(call, internal_error("the answer could not be written"));
  }
  if (call.remaining == 0) drop_call(call.id);
}

void ServerCore::deliver_event(Slot& slot, Call& call, const EngineDelivery& delivery) {
  const Event& event = std::get<Event>(delivery.what);
  if (std::holds_alternative<TokenEvent>(event)) record_token(slot, call, delivery);
  const auto* finished = std::get_if<FinishedEvent>(&event);
  if (finished != nullptr) {
    record_finished(slot, call, delivery);
    --call.remaining;
  }
  if (call.connection == nullptr) return;
  if (finished != nullptr && finished->reason == FinishReason::kExpired) {
    cancel(call);
    return reject(call, Rejection::kExpired, "the request waited too long; try again");
  }
  if (finished != nullptr && finished->reason == FinishReason::kError) {
    call.error = finished->error;
    cancel(call);
    return fail_call(call, internal_error(finished->error));
  }
  frames_.clear();
  call.exchange->on_event(delivery.index, event, frames_);
  if (!frames_.empty()) write_stream(call, frames_);
  if (call.connection == nullptr || finished == nullptr) return;
  if (call.remaining == 0) return end_call(call);
  go_on(call);
}

void ServerCore::record_token(Slot& slot, Call& call, const EngineDelivery& delivery) {
  AnswerState& answer = call.answers[delivery.index];
  if (answer.last_token_ns == 0) {
    slot.metrics->first_token(seconds(call.info.arrival_ns, delivery.at_ns));
    if (call.first_token_ns == 0) call.first_token_ns = delivery.at_ns;
  } else {
    slot.metrics->next_token(seconds(answer.last_token_ns, delivery.at_ns));
  }
  answer.last_token_ns = delivery.at_ns;
}

void ServerCore::record_finished(Slot& slot, Call& call, const EngineDelivery& delivery) {
  const auto& event = std::get<FinishedEvent>(std::get<Event>(delivery.what));
  call.usage.prompt_tokens += event.usage.prompt_tokens;
  call.usage.completion_tokens += event.usage.completion_tokens;
  call.usage.cached_tokens += event.usage.cached_tokens;
  slot.metrics->finished({.reason = event.reason,
                          .usage = event.usage,
                          .timing = event.timing,
                          .arrival_ns = call.info.arrival_ns,
                          .max_tokens = call.answers[delivery.index].max_tokens,
                          .answers = std::ssize(call.answers)});
}

void ServerCore::write_stream(Call& call, std::string_view bytes) {
  Connection& connection = *call.connection;
  if (!call.head_sent) {
    HttpResponse head = response_head(call.info, 200, "text/event-stream");
    head.fields.emplace_back("X-Accel-Buffering", "no");  // nginx passes it on at once
    connection.begin_stream(std::move(head));
    call.head_sent = true;
    call.status = 200;
    ++answers_[200];
  }
  connection.stream(bytes);
  call.answer_bytes += bytes.size();
  call.last_write_ns = now_ns();
  if (connection.unsent() <= options_.max_output_bytes) return;
  call.error = "the client reads too slowly";
  connection.set_call(0);
  connection.close();
  abandon(call.id);
}

void ServerCore::end_call(Call& call) {
  std::string out;
  call.exchange->end(out);
  if (!call.exchange->streams()) return send_answer(call, call.exchange->status(), out);
  if (!out.empty() || !call.head_sent) write_stream(call, out);
  if (call.connection == nullptr) return;
  call.connection->end_stream();
  detach(call);
}

void ServerCore::send_answer(Call& call, int status, std::string_view body) {
  call.status = status;
  call.answer_bytes = body.size();
  ++answers_[status];
  call.connection->respond(response_head(call.info, status, "application/json"), body);
  detach(call);
}

void ServerCore::fail_call(Call& call, ApiError error) {
  if (call.connection == nullptr) return;
  if (call.error.empty()) call.error = error.message;
  if (call.head_sent) {
    write_stream(call, call.exchange->error(error));
    if (call.connection == nullptr) return;
    call.connection->end_stream();
    return detach(call);
  }
  HttpResponse head = response_head(call.info, error.status, "application/json");
  if (error.retry_after_seconds > 0) {
    head.fields.emplace_back("Retry-After", fmt::format("{}", error.retry_after_seconds));
  }
  if (error.status == 405) head.fields.emplace_back("Allow", api_.allowed_methods(call.info.path));
  call.status = error.status;
  ++answers_[error.status];
  call.connection->respond(std::move(head), api_.error_body(call.info.path, error, call.info.id));
  detach(call);
}

void ServerCore::reject(Call& call, Rejection reason, const std::string& message) {
  Slot* slot = find_slot(call.slot);
  if (slot == nullptr && slots_.size() == 1) slot = slots_.front().get();
  if (slot != nullptr) slot->metrics->rejected(reason);
  fail_call(call, {.status = 503,
                   .type = "server_error",
                   .code = reason == Rejection::kDraining ? "shutting_down" : "overloaded",
                   .message = message,
                   .retry_after_seconds = retry_after()});
}

void ServerCore::detach(Call& call) {
  if (call.connection == nullptr) return;
  call.connection->set_call(0);
  call.connection = nullptr;
}

void ServerCore::cancel(Call& call) {
  call.remaining = call.running();
  call.handed_over = call.requests.size();
  if (call.remaining > 0) find_slot(call.slot)->thread->cancel(call.id);
}

void ServerCore::abandon(uint64_t id) {
  const auto found = calls_.find(id);
  if (found == calls_.end()) return;
  Call& call = *found->second;
  call.connection = nullptr;
  ++abandoned_;
  call.status = kClientGone;
  if (call.error.empty()) call.error = "the client went away";
  cancel(call);  // its last event ends it
}

void ServerCore::drop_call(uint64_t id) {
  const auto found = calls_.find(id);
  if (found == calls_.end()) return;
  log_answer(found->second->info, found->second->status, found->second.get());
  calls_.erase(found);
  const auto unloading = [](const auto& slot) { return slot->unloading; };
  if (std::any_of(slots_.begin(), slots_.end(), unloading)) {
    asio::post(io_, [this] { free_unused(); });
  }
}

}  // namespace quern
