#include <algorithm>
#include <memory>

#include <fmt/format.h>

#include "base/clock.h"
#include "cli/command.h"
#include "cli/console.h"
#include "cli/cost_report.h"
#include "cli/disclosure.h"
#include "cli/session.h"
#include "cli/speed.h"
#include "kernels/limits.h"
#include "model/footprint.h"

namespace quern {
namespace {

// Larger weights are read as fast as a piece of them that no cache holds, which must fit beside
// them.
constexpr size_t kMaxReadBytes = size_t{1} << 30;

struct BenchOptions {
  ConsoleOptions console;
  RunOptions run;
  std::string model;
  bool limits_only = false;
  SpeedOptions speed;
  std::vector<int64_t> batches{1, 8, 32};
};

// What one batch reaches and what the machine would allow.
struct BenchRow {
  SpeedPoint speed;
  double decode_limit = 0;   // tokens/s of all sequences
  double prefill_limit = 0;  // tokens/s
};

struct BenchReport {
  MachineLimits limits;
  double weights_gb_per_s = 0;  // read bandwidth of a working set as large as the weights
  size_t weight_bytes = 0;
  std::vector<BenchRow> rows;
  std::vector<std::string> notes;
};

// The arithmetic that the matrices run on: int8 for grouped weights, else float32.
double peak_gops(const BenchReport& report, Precision precision) {
  return precision == Precision::kFast ? report.limits.int8_gops : report.limits.f32_gflops;
}

// Decoding reads the weights once a step and each sequence's cache, and multiplies; it can be no
// faster than either allows. Prefill is arithmetic alone.
void set_limits(const BenchReport& report,
                const ModelSpec& spec,
                const RunOptions& run,
                BenchRow* row) {
  const SpeedPoint& speed = row->speed;
  const double peak = peak_gops(report, precision_by_name(run.precision)) * 1e9;
  const auto batch = static_cast<double>(speed.batch);
  const double context =
      static_cast<double>(speed.prefill_tokens) + static_cast<double>(speed.decode_tokens) / 2;
  const double cache_bytes = context * static_cast<double>(kv_bytes_per_token(spec, kv_dtype(run)));
  const double read_seconds = (static_cast<double>(report.weight_bytes) + batch * cache_bytes) /
                              (report.weights_gb_per_s * 1e9);
  const double multiply_seconds = batch * token_flops(spec, context).total() / peak;
  row->decode_limit = batch / std::max(read_seconds, multiply_seconds);
  const TokenFlops prompt = token_flops(spec, static_cast<double>(speed.prefill_tokens + 1) / 2);
  row->prefill_limit = peak / (prompt.linear + prompt.attention);
}

Result<BenchReport> run_points(const BenchOptions& options, Backend& backend) {
  const SteadyClock clock;
  std::vector<SpeedOptions> points;
  for (const int64_t batch : options.batches) {
    points.push_back(options.speed);
    points.back().batch = batch;
  }
  const LoadOptions load{.precision = precision_by_name(options.run.precision),
                         .head = head_format(options.run),
                         .limits = speed_limits(points, kv_dtype(options.run))};
  const Session session = QUERN_TRY(load_session(options.model, backend, load, options.console));
  BenchReport report;
  report.notes = session.report.notes;
  report.weight_bytes = session.report.weight_bytes;
  Progress progress("bench", std::ssize(points) + 1, "measurements", clock,
                    options.console.progress());
  progress.update(0);
  report.limits = measure_limits(backend.pool(), clock);
  report.weights_gb_per_s = measure_read_gb_per_s(
      backend.pool(), clock, std::clamp<size_t>(report.weight_bytes, 1, kMaxReadBytes));
  for (const SpeedOptions& point : points) {
    progress.update(std::ssize(report.rows) + 1);
    BenchRow row{.speed = QUERN_TRY(measure_speed(*session.model, point, clock))};
    set_limits(report, session.model->spec(), options.run, &row);
    report.rows.push_back(row);
  }
  return report;
}

nlohmann::ordered_json limits_json(const MachineLimits& limits) {
  return {{"threads", limits.threads},
          {"isa", limits.isa},
          {"read_gb_per_s", limits.read_gb_per_s},
          {"read_one_thread_gb_per_s", limits.read_gb_per_s_one},
          {"int8_gops", limits.int8_gops},
          {"int8_one_thread_gops", limits.int8_gops_one},
          {"f32_gflops", limits.f32_gflops},
          {"f32_one_thread_gflops", limits.f32_gflops_one},
          {"dispatch_ns", limits.dispatch_ns}};
}

void print_limits(const MachineLimits& limits) {
  Table table({{"limit", Align::kLeft},
               {"1 thread", Align::kRight},
               {fmt::format("{} threads", limits.threads), Align::kRight}});
  const auto add = [&](const char* name, double one, double all) {
    table.add({name, fmt::format("{:.1f}", one), fmt::format("{:.1f}", all)});
  };
  add("memory read, GB/s", limits.read_gb_per_s_one, limits.read_gb_per_s);
  add("int8 products, GOPS", limits.int8_gops_one, limits.int8_gops);
  add("float32 FMA, GFLOPS", limits.f32_gflops_one, limits.f32_gflops);
  fmt::print("{}one round of the thread pool: {:.0f} ns; {}\n", table.text(), limits.dispatch_ns,
             limits.isa);
}

nlohmann::ordered_json row_json(const BenchRow& row) {
  const SpeedPoint& speed = row.speed;
  return {{"batch", speed.batch},
          {"prefill_tokens", speed.prefill_tokens},
          {"decode_tokens", speed.decode_tokens},
          {"prefill_tokens_per_second", speed.prefill_tokens_per_second},
          {"decode_tokens_per_second", speed.decode_tokens_per_second},
          {"median_decode_tokens_per_second", speed.median_decode_tokens_per_second},
          {"ttft_ms", speed.ttft_ms},
          {"tpot_ms", speed.tpot_ms},
          {"limit_share", speed.decode_tokens_per_second / row.decode_limit},
          {"decode_limit_tokens_per_second", row.decode_limit},
          {"prefill_limit_share", speed.prefill_tokens_per_second / row.prefill_limit},
          {"prefill_limit_tokens_per_second", row.prefill_limit}};
}

void print_report(const BenchReport& report, const Disclosure& disclosure) {
  print_limits(report.limits);
  fmt::print("weights {} in memory, read at up to {:.1f} GB/s\n\n",
             format_bytes(static_cast<double>(report.weight_bytes)), report.weights_gb_per_s);
  Table table({{"batch", Align::kRight},
               {"prefill tok/s", Align::kRight},
               {"of limit", Align::kRight},
               {"decode tok/s", Align::kRight},
               {"of limit", Align::kRight},
               {"TTFT ms", Align::kRight},
               {"TPOT ms", Align::kRight}});
  for (const BenchRow& row : report.rows) {
    const SpeedPoint& speed = row.speed;
    table.add({std::to_string(speed.batch), fmt::format("{:.1f}", speed.prefill_tokens_per_second),
               fmt::format("{:.0f}%", 100 * speed.prefill_tokens_per_second / row.prefill_limit),
               fmt::format("{:.1f}", speed.decode_tokens_per_second),
               fmt::format("{:.0f}%", 100 * speed.decode_tokens_per_second / row.decode_limit),
               fmt::format("{:.1f}", speed.ttft_ms), fmt::format("{:.2f}", speed.tpot_ms)});
  }
  fmt::print("{}\n", table.text());
  for (const std::string& note : report.notes) fmt::print("note: {}\n", note);
  fmt::print("{}", disclosure_text(disclosure));
}

Result<Unit> run_bench(BenchOptions& options) {
  const auto backend = QUERN_TRY(open_backend(options.run));
  if (options.limits_only) {
    const SteadyClock clock;
    const MachineLimits limits = measure_limits(backend->pool(), clock);
    if (options.console.json) {
      print_json({{"limits", limits_json(limits)}});
    } else {
      print_limits(limits);
    }
    return Unit{};
  }
  if (options.model.empty()) {
    return Error{ErrorCode::kInvalidArgument, "bench needs a MODEL, or --limits"};
  }
  std::sort(options.batches.begin(), options.batches.end());
  const BenchReport report = QUERN_TRY(run_points(options, *backend));
  Disclosure disclosure = measured_disclosure(options.model, options.run, *backend, options.speed);
  set_disclosure(&disclosure, "batch", "as stated in each line");
  if (!options.console.json) {
    print_report(report, disclosure);
    return Unit{};
  }
  nlohmann::ordered_json results = nlohmann::ordered_json::array();
  for (const BenchRow& row : report.rows) results.push_back(row_json(row));
  nlohmann::ordered_json limits = limits_json(report.limits);
  limits["weights_read_gb_per_s"] = report.weights_gb_per_s;
  print_json({{"results", results},
              {"weight_bytes", report.weight_bytes},
              {"limits", limits},
              {"notes", report.notes},
              {"disclosure", disclosure_json(disclosure)}});
  return Unit{};
}

}  // namespace

Action declare_bench(CLI::App& app) {
  auto options = std::make_shared<BenchOptions>();
  app.add_option("model", options->model, "Directory, GGUF file or fetched name");
  app.add_flag("--limits", options->limits_only, "Measure the machine alone");
  app.add_option("--prefill", options->speed.prefill_tokens, "Tokens of each prompt")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  app.add_option("--decode", options->speed.decode_tokens, "Tokens written by each sequence")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  app.add_option("--batch", options->batches, "Sequences at once")
      ->delimiter(',')
      ->check(CLI::Range(int64_t{1}, int64_t{1024}))
      ->capture_default_str();
  app.add_option("--repeat", options->speed.repeat, "Repetitions, the best one counts")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  add_run_options(app, &options->run);
  add_console_options(app, &options->console);
  app.footer(
      "The limit of decoding is the slower of reading weights and cache at the measured bandwidth\n"
      "and multiplying at the measured peak; that of prefill is multiplying alone.");
  return [options] { return run_bench(*options); };
}

}  // namespace quern
