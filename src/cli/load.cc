#include "cli/load.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <memory>
#include <stdexcept>

#include <fmt/format.h>

#include "base/file.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "cli/command.h"
#include "cli/console.h"
#include "cli/file_limit.h"
#include "load/arrivals.h"
#include "load/load_plot.h"
#include "load/numbers.h"
#include "load/server_probe.h"

namespace quern {
namespace {

constexpr uint64_t kWarmupIndex = uint64_t{1} << 40;  // prompts of their own
constexpr int64_t kDefaultRequests = 100;
constexpr int64_t kDefaultConcurrency = 8;

struct LoadOptions {
  ConsoleOptions console;
  std::string url;
  std::string endpoint = "/v1/chat/completions";
  std::string model, api_key, ca_file;
  bool insecure_tls = false;
  std::string rate, burstiness = "1", ramp = "linear";
  double ramp_from = 0;
  int64_t concurrency = 0, requests = 0, warmup = 0;
  double duration = 0, timeout = 600;
  std::string input_tokens = "256", output_tokens = "128";
  int64_t prefix_tokens = 0;
  std::string prompts_file, extra_body;
  double tokens_per_word = kTokensPerWord;
  double disconnect_fraction = 0, hostile_fraction = 0;
  double temperature = 0;
  bool ignore_eos = false, check_usage = false;
  uint64_t seed = 0;
  std::string slo, plot_file, output_file;
};

// All that the command line says, checked before a server is asked.
struct LoadPlan {
  ServerUrl url;
  ArrivalOptions arrivals{};
  std::vector<double> due_seconds{};
  WorkloadOptions workload{};
  Objective objective{};
  int64_t concurrency = 0;

  // Whether time alone ends a closed loop.
  bool endless() const { return arrivals.requests == 0 && std::isinf(arrivals.rate_per_second); }
};

Result<double> number_or_inf(const std::string& text, const char* flag) {
  if (text == "inf") return std::numeric_limits<double>::infinity();
  const std::optional<double> number = read_number(text);
  if (number) return *number;
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{} is \"{}\"; expected a number, or inf", flag, text)};
}

Result<ArrivalOptions> plan_arrivals(const LoadOptions& options) {
  const std::string rate = options.rate.empty() ? "inf" : options.rate;
  ArrivalOptions arrivals{
      .rate_per_second = QUERN_TRY(number_or_inf(rate, "--rate")),
      .burstiness = QUERN_TRY(number_or_inf(options.burstiness, "--burstiness")),
      .requests = options.requests,
      .duration_seconds = options.duration,
      .seed = options.seed};
  if (arrivals.requests == 0 && arrivals.duration_seconds == 0)
    arrivals.requests = kDefaultRequests;
  if (options.ramp_from != 0) {
    arrivals.ramp = options.ramp == "linear" ? Ramp::kLinear : Ramp::kExponential;
    arrivals.ramp_from_per_second = options.ramp_from;
  }
  return arrivals;
}

Result<WorkloadOptions> plan_workload(const LoadOptions& options) {
  WorkloadOptions workload{
      .endpoint = QUERN_TRY(parse_endpoint(options.endpoint)),
      .model = options.model,
      .input_tokens = QUERN_TRY(LengthDistribution::parse(options.input_tokens, "--input-tokens")),
      .output_tokens =
          QUERN_TRY(LengthDistribution::parse(options.output_tokens, "--output-tokens")),
      .prefix_tokens = options.prefix_tokens,
      .ignore_eos = options.ignore_eos,
      .continuous_usage = options.check_usage,
      .disconnect_fraction = options.disconnect_fraction,
      .hostile_fraction = options.hostile_fraction,
      .temperature = options.temperature,
      .seed = options.seed};
  if (!options.prompts_file.empty()) {
    workload.prompts = QUERN_TRY(read_prompts_file(options.prompts_file));
  }
  if (!options.extra_body.empty()) {
    workload.extra =
        nlohmann::ordered_json(QUERN_TRY(parse_json(options.extra_body, "--extra-body")));
  }
  return workload;
}

Result<LoadPlan> make_plan(const LoadOptions& options) {
  LoadPlan plan{.url = QUERN_TRY(parse_server_url(options.url)),
                .arrivals = QUERN_TRY(plan_arrivals(options)),
                .workload = QUERN_TRY(plan_workload(options)),
                .concurrency = options.concurrency};
  if (!options.slo.empty()) plan.objective = QUERN_TRY(parse_objective(options.slo));
  plan.due_seconds = QUERN_TRY(arrival_times(plan.arrivals));
  if (options.rate.empty() && plan.concurrency == 0) plan.concurrency = kDefaultConcurrency;
  if (plan.endless() && plan.concurrency == 0) {
    return Error{ErrorCode::kInvalidArgument,
                 "--rate inf for a --duration has no end; give --requests or --concurrency"};
  }
  return plan;
}

// Room for the connections of the run, as far as this process may make it.
// An open loop has as many connections as its answers need, at most one for each request.
Result<Unit> allow_connections(const LoadPlan& plan) {
  if (plan.concurrency > 0) return require_file_limit(plan.concurrency, "--concurrency");
  raise_file_limit(std::ssize(plan.due_seconds));
  return Unit{};
}

Result<std::unique_ptr<ServerProbe>> open_server(const LoadOptions& options,
                                                 const LoadPlan& plan,
                                                 const Clock& clock) {
  ProbeOptions server{.url = plan.url,
                      .api_key = options.api_key,
                      .ca_file = options.ca_file,
                      .check = options.insecure_tls ? TlsCheck::kAcceptAny : TlsCheck::kVerify};
  if (server.api_key.empty()) {
    const char* key = std::getenv("OPENAI_API_KEY");
    server.api_key = key == nullptr ? "" : key;
  }
  return ServerProbe::open(std::move(server), clock);
}

Result<Workload> make_workload(const LoadOptions& options, LoadPlan& plan, ServerProbe& server) {
  WorkloadOptions& workload = plan.workload;
  if (workload.model.empty()) workload.model = QUERN_TRY(server.first_model());
  std::optional<WordTokens> words;
  if (workload.prompts.empty() || workload.prefix_tokens > 0) {
    words = server.count_words(workload.model, workload.endpoint);
  }
  return Workload::make(workload, words.value_or(WordTokens::estimate(options.tokens_per_word)));
}

// The bar counts requests, or seconds where the time is what ends the run.
RunHooks make_hooks(Progress* progress, const LoadRunOptions& run) {
  return {.interrupted = interrupted, .on_progress = [progress, &run](const RunProgress& now) {
            progress->note(
                fmt::format("{} active, {} failed, {:.0f} tokens/s", now.active, now.failed,
                            static_cast<double>(now.output_tokens) / std::max(now.seconds, 1e-3)));
            progress->update(run.endless ? static_cast<int64_t>(now.seconds) : now.finished);
          }};
}

RunResult run_with_progress(const Workload& workload,
                            const ServerProbe& server,
                            const LoadRunOptions& run,
                            const LoadOptions& options,
                            const char* title) {
  const SteadyClock clock;
  const int64_t total = run.endless ? static_cast<int64_t>(std::ceil(run.duration_seconds))
                                    : std::ssize(run.due_seconds);
  Progress progress(title, total, run.endless ? "s" : "requests", clock,
                    options.console.progress());
  return run_load(workload, server.target(), run, clock, make_hooks(&progress, run));
}

RunResult run_plan(const LoadOptions& options,
                   const LoadPlan& plan,
                   const Workload& workload,
                   const ServerProbe& server) {
  LoadRunOptions run{.due_seconds = plan.due_seconds,
                     .endless = plan.endless(),
                     .concurrency = plan.concurrency,
                     .duration_seconds = options.duration,
                     .timeout_seconds = options.timeout,
                     .head = server.post_head(endpoint_path(plan.workload.endpoint))};
  if (options.warmup > 0) {
    LoadRunOptions warmup = run;
    warmup.due_seconds.assign(static_cast<size_t>(options.warmup), 0.0);
    warmup.endless = false;
    warmup.duration_seconds = 0;
    warmup.concurrency = plan.concurrency > 0 ? plan.concurrency : kDefaultConcurrency;
    warmup.first_index = kWarmupIndex;
    run_with_progress(workload, server, warmup, options, "warm-up");
    check_interrupt();
  }
  return run_with_progress(workload, server, run, options, "load");
}

std::string arrivals_text(const LoadPlan& plan) {
  const ArrivalOptions& arrivals = plan.arrivals;
  std::string text;
  if (std::isinf(arrivals.rate_per_second)) {
    text = plan.concurrency > 0 ? "closed loop" : "all at once";
  } else {
    text = fmt::format("open loop at {:g} requests/s", arrivals.rate_per_second);
    if (arrivals.ramp != Ramp::kNone)
      text += fmt::format(" from {:g}", arrivals.ramp_from_per_second);
    text +=
        arrivals.burstiness == 1 ? ", Poisson" : fmt::format(", gamma {:g}", arrivals.burstiness);
  }
  if (plan.concurrency > 0) text += fmt::format(", at most {} at once", plan.concurrency);
  return text;
}

std::string lengths_text(const Workload& workload) {
  const WorkloadOptions& options = workload.options();
  std::string input = options.prompts.empty()
                          ? options.input_tokens.text() + " input"
                          : fmt::format("{} prompts of a file", options.prompts.size());
  if (options.prefix_tokens > 0) input += fmt::format(" and {} shared", options.prefix_tokens);
  return fmt::format("{}, {} output tokens{}{}", input, options.output_tokens.text(),
                     options.ignore_eos ? ", to the end" : "",
                     !options.prompts.empty()         ? ""
                     : workload.word_tokens().counted ? ", counted by the server"
                                                      : ", estimated from words");
}

nlohmann::ordered_json settings_json(const LoadOptions& options,
                                     const LoadPlan& plan,
                                     const Workload& workload) {
  const WorkloadOptions& asked = workload.options();
  const bool infinite = std::isinf(plan.arrivals.rate_per_second);
  nlohmann::ordered_json rate = "inf";
  if (!infinite) rate = plan.arrivals.rate_per_second;
  return {{"endpoint", endpoint_path(asked.endpoint)},
          {"model", asked.model},
          {"arrivals", arrivals_text(plan)},
          {"rate_per_second", rate},
          {"concurrency_limit", plan.concurrency},
          {"requests", plan.arrivals.requests},
          {"duration_limit_seconds", options.duration},
          {"timeout_seconds", options.timeout},
          {"warmup_requests", options.warmup},
          {"input_tokens", asked.input_tokens.text()},
          {"output_tokens", asked.output_tokens.text()},
          {"prefix_tokens", asked.prefix_tokens},
          {"prompts_file", options.prompts_file},
          {"token_counts", workload.word_tokens().counted ? "server" : "estimate"},
          {"ignore_eos", asked.ignore_eos},
          {"disconnect_fraction", asked.disconnect_fraction},
          {"hostile_fraction", asked.hostile_fraction},
          {"seed", asked.seed}};
}

// Files that are there in full or not at all, opened before the run so that a path that cannot be
// written costs no run.
struct ResultFiles {
  std::unique_ptr<AtomicFile> plot, output;

  explicit ResultFiles(const LoadOptions& options) {
    if (!options.plot_file.empty()) plot = std::make_unique<AtomicFile>(options.plot_file);
    if (!options.output_file.empty()) output = std::make_unique<AtomicFile>(options.output_file);
  }
};

void write_files(const RunResult& result,
                 const RunReport& report,
                 const std::vector<std::string>& notes,
                 const ResultFiles& files) {
  if (files.plot) {
    files.plot->write(load_plot(result, report, notes));
    files.plot->commit();
  }
  if (!files.output) return;
  std::string lines;
  for (const LoadRecord& record : result.records) {
    lines +=
        record_json(record).dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
    lines += '\n';
  }
  files.output->write(lines);
  files.output->commit();
}

// Whether the run did what was asked: all was answered, refused in order or closed on purpose.
Result<Unit> judge(const RunReport& report, const LoadOptions& options) {
  if (report.end == RunEnd::kInterrupted) throw Interrupted{};
  if (report.end == RunEnd::kUnreachable) {
    throw std::runtime_error(fmt::format(
        "{}: no connection could be opened {} times in a row, so the run ended; is the server "
        "still running?",
        options.url, kMaxUnreachable));
  }
  if (const int64_t failed = report.count(Outcome::kFailed); failed > 0) {
    return Error{ErrorCode::kConflict,
                 fmt::format("{}: {} of {} requests failed: {}", options.url, failed, report.sent,
                             report.errors.front().first)};
  }
  if (options.check_usage && !report.usage_problems.empty()) {
    return Error{
        ErrorCode::kConflict,
        fmt::format("{}: the usage of {} answers is wrong: {}", options.url,
                    report.usage_problems.front().second, report.usage_problems.front().first)};
  }
  if (report.count(Outcome::kRefused) == report.sent && report.sent > 0) {
    return Error{ErrorCode::kExhausted,
                 fmt::format("{}: every request was refused; try a lower --rate or --concurrency",
                             options.url)};
  }
  return Unit{};
}

Result<Unit> run_command(const LoadOptions& options) {
  LoadPlan plan = QUERN_TRY(make_plan(options));
  QUERN_TRY(allow_connections(plan));
  const ResultFiles files(options);
  const SteadyClock clock;
  const auto server = QUERN_TRY(open_server(options, plan, clock));
  const Workload workload = QUERN_TRY(make_workload(options, plan, *server));
  check_interrupt();
  const RunResult result = run_plan(options, plan, workload, *server);
  const RunReport report =
      make_report(result, {.objective = plan.objective, .ignore_eos = options.ignore_eos});
  const std::vector<std::string> notes = {
      fmt::format("{}{}, model {}", plan.url.text(), endpoint_path(plan.workload.endpoint),
                  workload.options().model),
      fmt::format("{}; seed {}", arrivals_text(plan), options.seed), lengths_text(workload)};
  if (options.console.json) {
    nlohmann::ordered_json json = {{"url", plan.url.text()}};
    json.update(report_json(report, plan.objective));
    json["settings"] = settings_json(options, plan, workload);
    print_json(json);
  } else {
    fmt::print("{}\n\n{}", fmt::join(notes, "\n"), load_tables(report, plan.objective));
  }
  std::fflush(stdout);
  write_files(result, report, notes, files);
  return judge(report, options);
}

void add_server_options(CLI::App& app, LoadOptions* options) {
  app.add_option("url", options->url, "Address of the server, e.g. http://127.0.0.1:8080")
      ->required();
  app.add_option("--endpoint", options->endpoint, "/v1/chat/completions or /v1/completions")
      ->capture_default_str();
  app.add_option("--model", options->model, "Default: the first that /v1/models lists");
  app.add_option("--api-key", options->api_key, "Default: the environment's OPENAI_API_KEY");
  app.add_option("--ca-file", options->ca_file,
                 "Certificates to trust, PEM (default: the system's)");
  app.add_flag("--insecure-tls", options->insecure_tls, "Take any certificate");
}

void add_arrival_options(CLI::App& app, LoadOptions* options) {
  app.add_option("--rate", options->rate, "Requests a second whatever the answers take, or inf");
  app.add_option("--burstiness", options->burstiness,
                 "Shape of the gaps: 1 is Poisson, less comes in bursts, more evenly, inf exactly")
      ->capture_default_str();
  app.add_option("--ramp-from", options->ramp_from, "Rate to begin with; --rate is the last one");
  app.add_option("--ramp", options->ramp, "How the rate changes")
      ->check(CLI::IsMember({"linear", "exponential"}))
      ->capture_default_str();
  app.add_option("--concurrency", options->concurrency,
                 "Requests at once at most (default: 8 without --rate, no limit with it)")
      ->check(CLI::Range(1, 1'000'000));
  app.add_option("--requests", options->requests, "How many (default: 100 without --duration)")
      ->check(CLI::Range(int64_t{1}, kMaxRequests));
  app.add_option("--duration", options->duration, "Seconds in which requests begin")
      ->check(CLI::Range(0.001, 1e7));
  app.add_option("--warmup", options->warmup, "Requests sent before, which count nowhere")
      ->check(CLI::Range(int64_t{0}, kMaxRequests))
      ->capture_default_str();
  app.add_option("--timeout", options->timeout, "Seconds that a request may take")
      ->check(CLI::Range(0.001, 1e7))
      ->capture_default_str();
}

void add_workload_options(CLI::App& app, LoadOptions* options) {
  app.add_option("--input-tokens", options->input_tokens,
                 "Length of prompts: N, uniform(LEAST,MOST), normal(MEAN,DEVIATION) or "
                 "lognormal(MEDIAN,SIGMA)")
      ->capture_default_str();
  app.add_option("--output-tokens", options->output_tokens, "Most tokens of answers, alike")
      ->capture_default_str();
  app.add_option("--prefix-tokens", options->prefix_tokens,
                 "Text that all prompts begin with, beside --input-tokens")
      ->capture_default_str();
  app.add_option("--prompts", options->prompts_file,
                 "JSON Lines of prompts or conversations, in turn (docs/load.md)");
  app.add_option("--tokens-per-word", options->tokens_per_word,
                 "Estimate for servers without /tokenize")
      ->check(CLI::Range(0.1, 100.0))
      ->capture_default_str();
  app.add_flag("--ignore-eos", options->ignore_eos, "Ask for answers of exactly --output-tokens");
  app.add_option("--temperature", options->temperature, "Of sampling")->capture_default_str();
  app.add_option("--extra-body", options->extra_body, "JSON object of further request fields");
  app.add_option("--seed", options->seed, "The same seed sends the same requests at the same times")
      ->capture_default_str();
}

void add_check_options(CLI::App& app, LoadOptions* options) {
  app.add_option("--disconnect-fraction", options->disconnect_fraction,
                 "Share of requests whose client closes in mid-answer")
      ->capture_default_str();
  app.add_option("--hostile-fraction", options->hostile_fraction,
                 "Share of requests with a malformed body, which must get a 4xx")
      ->capture_default_str();
  app.add_flag("--check-usage", options->check_usage,
               "Have tokens counted in every chunk; a wrong usage fails the run");
  app.add_option("--slo", options->slo, "Objective of goodput, e.g. ttft=500ms,tpot=50ms,e2e=10s");
  app.add_option("--plot", options->plot_file, "SVG file of latencies and throughput");
  app.add_option("--output", options->output_file, "JSON Lines file, a line for each request");
}

}  // namespace

Action declare_load(CLI::App& app) {
  auto options = std::make_shared<LoadOptions>();
  add_server_options(app, options.get());
  add_arrival_options(app, options.get());
  add_workload_options(app, options.get());
  add_check_options(app, options.get());
  add_console_options(app, &options->console);
  app.footer(
      "Latencies are those of vLLM's `bench serve` (docs/load.md). The status is 0 when no "
      "request\n"
      "failed; refusals (429, 503, 529) are counted and no failure.");
  return [options] { return run_command(*options); };
}

}  // namespace quern
