// What the server answers itself: the page, health, metrics, preflights and refusals.
#include <algorithm>
#include <chrono>
#include <ctime>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "engine/block_manager.h"
#include "serve/server_core.h"
#include "serve/server_web.h"

namespace quern {
namespace {

constexpr size_t kMaxRequestIdBytes = 128;
constexpr size_t kMaxLoggedPathBytes = 256;
constexpr std::string_view kAdminPrefix = "/admin/";

bool valid_request_id(std::string_view id) {
  if (id.empty() || id.size() > kMaxRequestIdBytes) return false;
  return std::all_of(id.begin(), id.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
           c == '_' || c == '.';
  });
}

bool is_read(std::string_view method) { return method == "GET" || method == "HEAD"; }

std::string timestamp() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
  const std::time_t seconds = ms / 1000;
  std::tm tm{};
  gmtime_r(&seconds, &tm);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", tm.tm_year + 1900, tm.tm_mon + 1,
                     tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, ms % 1000);
}

// Whether a Host field has an address or localhost: a name could be anybody's that is made to stand
// for this machine (DNS rebinding).
bool names_no_domain(std::string_view host) {
  if (host.starts_with('[')) return true;
  const std::string_view name = host.substr(0, host.find(':'));
  if (name == "localhost" || name.ends_with(".localhost")) return true;
  return !name.empty() && name.find_first_not_of("0123456789.") == std::string_view::npos;
}

double milliseconds(int64_t from_ns, int64_t to_ns) {
  return static_cast<double>(to_ns - from_ns) * 1e-6;
}

}  // namespace

RequestInfo ServerCore::request_info(const Connection& connection, const HttpRequest& request) {
  const std::string_view id = request.field("x-request-id");
  return {.id = valid_request_id(id) ? std::string(id)
                                     : fmt::format("req-{:016x}{:016x}", random(), random()),
          .method = request.method,
          .path = request.path,
          .cors_origin = allowed_origin(request),
          .peer = connection.peer(),
          .arrival_ns = now_ns()};
}

std::string ServerCore::allowed_origin(const HttpRequest& request) const {
  const std::string_view origin = request.field("origin");
  if (origin.empty()) return {};
  for (const std::string& allowed : options_.cors_origins) {
    if (allowed == "*" || allowed == origin) return allowed;
  }
  return {};
}

// Whether a page of another site sent it: a browser states where a script comes from, and a server
// on this machine must not compute for any page that happens to be open. Without keys the server's
// own page is known by its address alone.
bool ServerCore::foreign_origin(const HttpRequest& request) const {
  const std::string_view origin = request.field("origin");
  if (origin.empty() || !allowed_origin(request).empty()) return false;
  const size_t scheme = origin.find("://");
  const std::string_view host = request.field("host");
  if (scheme == std::string_view::npos || origin.substr(scheme + 3) != host) return true;
  return options_.keys == nullptr && !names_no_domain(host);
}

bool ServerCore::authenticated(const HttpRequest& request, RequestInfo& info) const {
  if (options_.keys == nullptr) return true;
  if (request.count("authorization") > 1 || request.count("x-api-key") > 1) return false;
  const std::string_view key =
      presented_key(request.field("authorization"), request.field("x-api-key"));
  const KeyHolder* holder = key.empty() ? nullptr : options_.keys->find(key);
  if (holder == nullptr) return false;
  info.key_name = holder->name;
  info.role = holder->role;
  return true;
}

void ServerCore::handle(Connection& connection, HttpRequest&& request) {
  RequestInfo info = request_info(connection, request);
  if (request.method == "OPTIONS" && !info.cors_origin.empty()) {
    return answer_preflight(connection, info);
  }
  if (foreign_origin(request) && !is_read(request.method)) {
    return respond_error(connection, info,
                         {.status = 403,
                          .type = "permission_error",
                          .code = "origin_not_allowed",
                          .message = "pages of this origin may not call; see --cors-origin"});
  }
  if (answer_locally(connection, request, info)) return;
  if (!authenticated(request, info)) {
    return respond_error(connection, info,
                         {.status = 401,
                          .type = "authentication_error",
                          .code = "invalid_api_key",
                          .message = "an API key is needed: Authorization: Bearer KEY"});
  }
  if (request.path.starts_with(kAdminPrefix) && !may_administer(info)) {
    return respond_error(connection, info,
                         {.status = 403,
                          .type = "permission_error",
                          .code = "admin_only",
                          .message = "the key of an admin is needed"});
  }
  if (request.path == "/metrics" && is_read(request.method)) {
    return answer_metrics(connection, info);
  }
  const std::string_view coding = request.field("content-encoding");
  if (!coding.empty() && coding != "identity") {
    return respond_error(connection, info,
                         {.status = 415,
                          .type = "invalid_request_error",
                          .param = "content-encoding",
                          .message = "compressed bodies are not accepted"});
  }
  open_call(connection, std::move(request), std::move(info));
}

bool ServerCore::answer_locally(Connection& connection,
                                const HttpRequest& request,
                                const RequestInfo& info) {
  const bool open_metrics =
      request.path == "/metrics" && options_.metrics == MetricsAccess::kPublic;
  const bool health =
      request.path == "/live" || request.path == "/ready" || request.path == "/health";
  const WebFile* file = find_web_file(request.path);
  if (!open_metrics && !health && file == nullptr) return false;
  if (!is_read(request.method)) {
    respond_error(connection, info,
                  {.status = 405,
                   .type = "invalid_request_error",
                   .message = fmt::format("{} answers GET and HEAD", request.path)});
  } else if (health) {
    answer_health(connection, info);
  } else if (open_metrics) {
    answer_metrics(connection, info);
  } else {
    respond(connection, info,
            {.content_type = std::string(file->content_type),
             .body = file->content,
             .fields = {{"Content-Security-Policy",
                         "default-src 'none'; script-src 'self'; style-src 'self'; "
                         "connect-src 'self'; img-src 'self'; base-uri 'none'; "
                         "form-action 'none'; frame-ancestors 'none'"},
                        {"Referrer-Policy", "no-referrer"}}});
  }
  return true;
}

void ServerCore::answer_preflight(Connection& connection, const RequestInfo& info) {
  respond(connection, info,
          {.status = 204,
           .content_type = "",
           .fields = {{"Access-Control-Allow-Methods", "GET, POST"},
                      {"Access-Control-Allow-Headers",
                       "authorization, content-type, x-api-key, x-request-id, anthropic-version"},
                      {"Access-Control-Max-Age", "600"}}});
}

void ServerCore::answer_health(Connection& connection, const RequestInfo& info) {
  const int64_t now = now_ns();
  nlohmann::ordered_json models = nlohmann::ordered_json::array();
  bool hanging = false;
  for (const auto& slot : slots_) {
    const EngineSnapshot engine = slot->thread->snapshot();
    const bool slot_hangs = hangs(*slot, now);
    hanging = hanging || slot_hangs;
    const double age = engine.outstanding == 0 ? 0 : milliseconds(engine.progress_ns, now) * 1e-3;
    models.push_back({{"id", slot->served.model->id},
                      {"state", engine.failed     ? "failed"
                                : slot_hangs      ? "hangs"
                                : slot->unloading ? "unloading"
                                                  : "serving"},
                      {"steps", engine.stats.steps},
                      {"step_age_seconds", age}});
  }
  const bool live = info.path == "/live";
  const bool ready = !hanging && (!draining_ || info.path == "/health");
  const char* status = hanging ? "hangs" : draining_ ? "draining" : "ok";
  const nlohmann::ordered_json json = {{"status", live ? "live" : status}, {"models", models}};
  const std::string body = json.dump() + "\n";
  respond(connection, info, {.status = live || ready ? 200 : 503, .body = body});
}

void ServerCore::answer_metrics(Connection& connection, const RequestInfo& info) {
  std::vector<ModelPage> pages;
  for (const auto& slot : slots_) {
    pages.push_back({.name = slot->served.model->id,
                     .block_tokens = kKvBlockTokens,
                     .engine = slot->thread->snapshot(),
                     .rows_per_step = &slot->thread->rows_per_step(),
                     .metrics = slot->metrics.get()});
  }
  const std::string body = metrics_page(
      pages, {.connections = std::ssize(connections_),
              .calls = std::ssize(calls_),
              .abandoned = abandoned_,
              .log_lines_dropped = options_.log == nullptr ? 0 : options_.log->dropped(),
              .now_ns = now_ns(),
              .now_unix_s = unix_s(),
              .answers = &answers_});
  respond(connection, info,
          {.content_type = "text/plain; version=0.0.4; charset=utf-8", .body = body});
}

HttpResponse ServerCore::response_head(const RequestInfo& info,
                                       int status,
                                       std::string content_type) const {
  HttpResponse head{.status = status, .content_type = std::move(content_type), .unix_s = unix_s()};
  head.fields = {{"x-request-id", info.id},
                 {"X-Content-Type-Options", "nosniff"},
                 {"Cache-Control", "no-store"}};
  if (info.path.starts_with("/v1/messages")) head.fields.emplace_back("request-id", info.id);
  if (!info.cors_origin.empty()) {
    head.fields.emplace_back("Access-Control-Allow-Origin", info.cors_origin);
    head.fields.emplace_back("Access-Control-Expose-Headers", "x-request-id");
    head.fields.emplace_back("Vary", "Origin");
  }
  if (options_.tls != nullptr) {
    head.fields.emplace_back("Strict-Transport-Security", "max-age=31536000");
  }
  if (draining_) head.after = AfterAnswer::kClose;
  return head;
}

void ServerCore::respond(Connection& connection,
                         const RequestInfo& info,
                         const LocalAnswer& answer) {
  HttpResponse head = response_head(info, answer.status, answer.content_type);
  head.fields.insert(head.fields.end(), answer.fields.begin(), answer.fields.end());
  ++answers_[answer.status];
  log_answer(info, answer.status, nullptr);
  connection.respond(std::move(head), answer.body);
}

void ServerCore::respond_error(Connection& connection,
                               const RequestInfo& info,
                               const ApiError& error) {
  LocalAnswer answer{.status = error.status};
  const std::string body = api_.error_body(info.path, error, info.id);
  answer.body = body;
  if (error.retry_after_seconds > 0) {
    answer.fields.emplace_back("Retry-After", fmt::format("{}", error.retry_after_seconds));
  }
  if (error.status == 401) answer.fields.emplace_back("WWW-Authenticate", "Bearer");
  if (error.status == 405) {
    const std::string allowed = api_.allowed_methods(info.path);
    answer.fields.emplace_back("Allow", allowed.empty() ? "GET, HEAD" : allowed);
  }
  respond(connection, info, answer);
}

void ServerCore::refuse(Connection& connection, const HttpFailure& failure) {
  RequestInfo info = request_info(connection, {});
  info.arrival_ns = now_ns();
  const ApiError error{
      .status = failure.status, .type = "invalid_request_error", .message = failure.message};
  HttpResponse head = response_head(info, failure.status, "application/json");
  head.after = AfterAnswer::kClose;
  ++answers_[failure.status];
  log_answer(info, failure.status, nullptr);
  connection.respond(std::move(head), api_.error_body(info.path, error, info.id));
}

// Neither prompts, answers nor keys are in it; what a client chose is escaped as JSON.
void ServerCore::log_answer(const RequestInfo& info, int status, const Call* call) {
  if (options_.log == nullptr) return;
  nlohmann::ordered_json line = {{"time", timestamp()},
                                 {"event", "request"},
                                 {"request_id", info.id},
                                 {"peer", info.peer},
                                 {"method", info.method.substr(0, kMaxRequestIdBytes)},
                                 {"path", info.path.substr(0, kMaxLoggedPathBytes)},
                                 {"status", status},
                                 {"duration_ms", milliseconds(info.arrival_ns, now_ns())}};
  if (!info.key_name.empty()) line["key"] = info.key_name;
  if (call != nullptr && !call->answers.empty()) {
    line["model"] = call->exchange->model()->id;
    line["answers"] = call->answers.size();
    line["prompt_tokens"] = call->usage.prompt_tokens;
    line["cached_tokens"] = call->usage.cached_tokens;
    line["completion_tokens"] = call->usage.completion_tokens;
    if (call->first_token_ns != 0) {
      line["ttft_ms"] = milliseconds(info.arrival_ns, call->first_token_ns);
    }
    line["answer_bytes"] = call->answer_bytes;
  }
  if (call != nullptr && !call->error.empty()) line["error"] = call->error;
  options_.log->write(line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

}  // namespace quern
