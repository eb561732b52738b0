#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <set>

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "cli/command.h"
#include "cli/console.h"
#include "cli/file_limit.h"
#include "cli/serve_model.h"
#include "serve/api_router.h"
#include "serve/server.h"
#include "serve/systemd_notify.h"

namespace quern {
namespace {

constexpr int64_t kDefaultDraft = 4;  // guesses of a draft model

struct ServeOptions {
  ConsoleOptions console;
  ServeModelOptions model;
  ServerOptions server;
  std::vector<std::string> models;
  std::vector<std::string> names;
  std::string kv_cache;
  std::string keys_file;
  std::string tls_certificate, tls_key;
  std::string log = "-";
  int64_t drain_seconds = 30;
  int64_t queue_seconds = 60;
  int64_t watchdog_seconds = 120;
  std::optional<int64_t> max_connections;
  bool insecure = false;
  bool public_metrics = false;
};

// What the server borrows while it runs.
struct Guards {
  std::optional<ApiKeys> keys;
  std::unique_ptr<TlsContext> tls;
};

Result<Guards> open_guards(const ServeOptions& options) {
  Guards guards;
  if (!options.keys_file.empty()) guards.keys = QUERN_TRY(ApiKeys::load(options.keys_file));
  if (options.tls_certificate.empty() != options.tls_key.empty()) {
    return Error{ErrorCode::kInvalidArgument, "--tls-cert and --tls-key come together"};
  }
  if (!options.tls_certificate.empty()) {
    guards.tls = QUERN_TRY(TlsContext::load(options.tls_certificate, options.tls_key));
  }
  return guards;
}

Result<std::vector<std::string>> choose_names(const ServeOptions& options) {
  if (!options.names.empty() && options.names.size() != options.models.size()) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("--served-model-name was given {} times for {} models",
                             options.names.size(), options.models.size())};
  }
  std::vector<std::string> names = options.names;
  if (names.empty()) {
    for (const std::string& model : options.models) names.push_back(default_model_id(model));
  }
  std::set<std::string> seen;
  for (const std::string& name : names) {
    if (!seen.insert(name).second) {
      return Error{
          ErrorCode::kInvalidArgument,
          fmt::format("two models are called {}; name them with --served-model-name", name)};
    }
  }
  return names;
}

std::string bytes_text(uint64_t bytes) { return format_bytes(static_cast<double>(bytes)); }

void print_plan(const std::vector<ServePlan>& plans) {
  Table table({{"model", Align::kLeft},
               {"weights", Align::kRight},
               {"cache", Align::kRight},
               {"cache tokens", Align::kRight},
               {"scratch", Align::kRight},
               {"total", Align::kRight},
               {"context", Align::kRight},
               {"at once", Align::kRight}});
  uint64_t total = 0;
  for (const ServePlan& plan : plans) {
    const ModelSize& size = plan.size;
    total += size.total_bytes();
    table.add({plan.id, bytes_text(size.weights_bytes), bytes_text(size.kv_cache_bytes),
               format_count(size.kv_cache_tokens), bytes_text(size.scratch_bytes),
               bytes_text(size.total_bytes()), format_count(size.context),
               format_count(size.max_sequences)});
  }
  fmt::print("{}", table.text());
  if (plans.size() > 1) fmt::print("total: {}\n", bytes_text(total));
  std::fflush(stdout);
}

void print_ready(const ServeOptions& options,
                 const std::vector<ServePlan>& plans,
                 const std::string& url) {
  if (!options.console.json) {
    fmt::print("ready: {}\n", url);
    std::fflush(stdout);
    return;
  }
  nlohmann::ordered_json models = nlohmann::ordered_json::array();
  for (const ServePlan& plan : plans) {
    const ModelSize& size = plan.size;
    models.push_back({{"id", plan.id},
                      {"context", size.context},
                      {"max_sequences", size.max_sequences},
                      {"kv_cache_tokens", size.kv_cache_tokens},
                      {"weights_bytes", size.weights_bytes},
                      {"kv_cache_bytes", size.kv_cache_bytes},
                      {"scratch_bytes", size.scratch_bytes},
                      {"total_bytes", size.total_bytes()}});
  }
  print_json({{"url", url}, {"models", models}});
  std::fflush(stdout);
}

// A file descriptor that is closed unless it is standard error's.
class LogFile {
 public:
  static Result<std::unique_ptr<LogFile>> open(const std::string& name) {
    auto log = std::make_unique<LogFile>();
    if (name == "none") return log;
    log->fd_ = name == "-" ? STDERR_FILENO
                           : ::open(name.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
    if (log->fd_ < 0) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("--log {}: {}", name, std::strerror(errno))};
    }
    log->writer_ = std::make_unique<LogWriter>(log->fd_);
    return log;
  }

  LogFile() = default;
  LogFile(const LogFile&) = delete;
  LogFile& operator=(const LogFile&) = delete;

  ~LogFile() {
    writer_.reset();
    if (fd_ > STDERR_FILENO) ::close(fd_);
  }

  LogWriter* writer() const { return writer_.get(); }

 private:
  int fd_ = -1;
  std::unique_ptr<LogWriter> writer_;
};

std::string url_of(const ServerOptions& options, uint16_t port) {
  const bool ipv6 = options.host.find(':') != std::string::npos;
  return fmt::format("{}://{}{}{}:{}", options.tls != nullptr ? "https" : "http", ipv6 ? "[" : "",
                     options.host, ipv6 ? "]" : "", port);
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// Those that were asked for, or the default as far as this process may open files.
Result<int64_t> choose_connections(const ServeOptions& options) {
  const int64_t wanted = options.max_connections.value_or(options.server.max_connections);
  const int64_t most = raise_file_limit(wanted);
  if (options.max_connections || most <= 0) {
    QUERN_TRY(require_file_limit(wanted, "--max-connections"));
  } else if (most < wanted) {
    fmt::print(
        stderr,
        "note: {} connections at once, as this process may open {} files; `ulimit -n` raises it\n",
        most, most + kSpareFiles);
  }
  return std::min(most, wanted);
}

Result<Unit> run_serve(ServeOptions& options) {
  // All that can be wrong without a model is said before one is loaded.
  const Guards guards = QUERN_TRY(open_guards(options));
  options.server.keys = guards.keys ? &*guards.keys : nullptr;
  options.server.tls = guards.tls.get();
  if (!options.insecure) QUERN_TRY(check_exposure(options.server));
  const std::vector<std::string> names = QUERN_TRY(choose_names(options));
  options.server.max_connections = QUERN_TRY(choose_connections(options));
  if (!options.kv_cache.empty()) {
    options.model.kv_cache_bytes = QUERN_TRY(parse_bytes(options.kv_cache));
  }
  if (!options.model.draft_model.empty()) {
    if (options.models.size() > 1) {
      return Error{ErrorCode::kInvalidArgument, "--draft-model goes with one model"};
    }
    if (options.model.max_draft == 0) options.model.max_draft = kDefaultDraft;
  }
  options.model.max_queued = options.server.max_queued;
  options.model.max_batch_tokens =
      std::max(options.model.max_batch_tokens, options.model.max_sequences);
  const auto log = QUERN_TRY(LogFile::open(options.log));
  const auto backend = QUERN_TRY(open_backend(options.model.run));
  const SteadyClock clock;
  ServingModels models(options.model, *backend, clock);
  const std::vector<ServePlan> plans = QUERN_TRY(models.plan(options.models, names));
  if (!options.console.json) print_plan(plans);

  std::vector<ServedEngine> engines;
  for (size_t i = 0; i < plans.size(); ++i) {
    engines.push_back(QUERN_TRY(models.start(options.models[i], plans[i], options.console)));
  }
  SystemdNotifier notifier(environment("NOTIFY_SOCKET"), environment("WATCHDOG_USEC"), clock);
  ServerOptions& server = options.server;
  server.deadlines.drain_ms = options.drain_seconds * 1000;
  server.deadlines.queue_ms = options.queue_seconds * 1000;
  server.deadlines.watchdog_ms = options.watchdog_seconds * 1000;
  server.metrics = options.public_metrics ? MetricsAccess::kPublic : MetricsAccess::kWithKey;
  server.signals = SignalHandling::kDrain;
  server.models = &models;
  server.log = log->writer();
  server.healthy = [&notifier] { notifier.alive(); };
  const ServerApi api{
      .open = open_exchange, .error_body = api_error_body, .allowed_methods = allowed_methods};
  const auto running = QUERN_TRY(Server::open(server, engines, api, clock));
  print_ready(options, plans, url_of(server, running->port()));
  notifier.ready();
  running->run();
  notifier.stopping();
  return Unit{};
}

void add_network_options(CLI::App& app, ServeOptions* options) {
  ServerOptions& server = options->server;
  app.add_option("--host", server.host, "Address to listen on")->capture_default_str();
  app.add_option("--port", server.port, "0: any free one")->capture_default_str();
  app.add_option("--api-keys", options->keys_file, "File with a key on each line, or NAME KEY");
  app.add_option("--tls-cert", options->tls_certificate, "Certificate chain, PEM");
  app.add_option("--tls-key", options->tls_key, "Its key, PEM");
  app.add_flag("--insecure", options->insecure,
               "Listen on other addresses than loopback without keys or TLS");
  app.add_flag("--public-metrics", options->public_metrics, "Serve /metrics without a key");
  app.add_option("--cors-origin", server.cors_origins,
                 "Let pages of this origin call; may be given again, * is any")
      ->allow_extra_args(false);
  app.add_option("--max-connections", options->max_connections,
                 fmt::format("Open at once (default: {}, or what `ulimit -n` leaves)",
                             server.max_connections))
      ->check(CLI::Range(1, 1'000'000));
  app.add_option("--request-threads", server.request_threads,
                 "Threads that turn bodies into tokens")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  app.add_option("--log", options->log, "File for the log of answers; - is standard error, or none")
      ->capture_default_str();
  app.add_option("--drain-seconds", options->drain_seconds, "What SIGTERM leaves calls to end")
      ->check(CLI::Range(0, 86'400))
      ->capture_default_str();
  app.add_option("--watchdog-seconds", options->watchdog_seconds,
                 "A step that takes longer makes /health fail")
      ->check(CLI::Range(1, 86'400))
      ->capture_default_str();
}

void add_engine_options(CLI::App& app, ServeOptions* options) {
  ServeModelOptions& model = options->model;
  app.add_option("--served-model-name", options->names,
                 "What requests call the model; once for each model, in order")
      ->allow_extra_args(false);
  app.add_option("--max-sequences", model.max_sequences, "Requests computed at once, each model")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--max-batch-tokens", model.max_batch_tokens, "Rows of one step")
      ->check(CLI::Range(1, 65'536))
      ->capture_default_str();
  app.add_option("--speculate", model.max_draft,
                 "Tokens to guess from the text and check in one step where that pays; the answers "
                 "stay the same (default: 0, with a draft model 4)")
      ->check(CLI::Range(0, 16));
  app.add_option("--draft-model", model.draft_model,
                 "A smaller model of the same vocabulary that guesses instead");
  app.add_option("--context", model.context,
                 "Most tokens of one request (default: the model's, at most 8192)")
      ->check(CLI::Range(1, 1 << 30));
  app.add_option("--kv-cache", options->kv_cache,
                 "Key-value cache of each model, e.g. 2GiB (default: for all sequences, at most a "
                 "quarter of the memory)");
  app.add_option("--pooling", model.pooling,
                 "Embeddings: the mean of all tokens' hidden states, or the last token's")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, Pooling>{{"mean", Pooling::kMean}, {"last", Pooling::kLast}}))
      ->default_str("mean");
  app.add_option("--max-queued", options->server.max_queued,
                 "Requests that may wait; more are refused with 503")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  app.add_option("--queue-seconds", options->queue_seconds, "Most time a request may wait")
      ->check(CLI::Range(1, 86'400))
      ->capture_default_str();
}

}  // namespace

Action declare_serve(CLI::App& app) {
  auto options = std::make_shared<ServeOptions>();
  app.add_option("models", options->models, "Directories, GGUF files or fetched names")->required();
  add_network_options(app, options.get());
  add_engine_options(app, options.get());
  add_run_options(app, &options->model.run);
  add_console_options(app, &options->console);
  return [options] { return run_serve(*options); };
}

}  // namespace quern
