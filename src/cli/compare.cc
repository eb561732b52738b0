#include <algorithm>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/clock.h"
#include "cli/command.h"
#include "cli/console.h"
#include "cli/cost_report.h"
#include "cli/disclosure.h"
#include "cli/session.h"
#include "cli/speed.h"
#include "cli/store.h"
#include "cli/text_input.h"
#include "quant/evaluate.h"

namespace quern {
namespace {

struct CompareOptions {
  ConsoleOptions console;
  RunOptions run;
  std::vector<std::string> models;
  std::string baseline_precision = "bf16";
  std::string text_file;
  std::string hardware_file;
  EvaluateOptions evaluate{.max_tokens = 16384};
  SpeedOptions speed{.prefill_tokens = 128, .decode_tokens = 32};
  std::vector<int64_t> batches{1, 32};
  double usd_per_hour = 0;
  double output_usd_per_million = 0;
  double input_usd_per_million = 0;
  double utilization = 1;
};

struct Row {
  std::string model;
  size_t weight_bytes = 0;
  EvalReport quality{};
  std::vector<SpeedPoint> speed{};  // one for each batch
  CostInputs cost_inputs{};
  CostCard cost{};  // at the largest batch
};

RunOptions run_options(const CompareOptions& options, size_t index) {
  RunOptions run = options.run;
  if (index == 0) {
    run.precision = options.baseline_precision;
    run.kv.clear();
  }
  return run;
}

std::vector<SpeedOptions> speed_points(const CompareOptions& options) {
  std::vector<SpeedOptions> points;
  for (const int64_t batch : options.batches) {
    SpeedOptions point = options.speed;
    point.batch = batch;
    points.push_back(point);
  }
  return points;
}

Result<std::vector<SpeedPoint>> measure(const CompareOptions& options,
                                        size_t index,
                                        Backend& backend,
                                        size_t* weight_bytes) {
  const RunOptions run = run_options(options, index);
  const std::vector<SpeedOptions> points = speed_points(options);
  const LoadOptions load{.precision = precision_by_name(run.precision),
                         .head = head_format(run),
                         .limits = speed_limits(points, kv_dtype(run))};
  const Session session =
      QUERN_TRY(load_session(options.models[index], backend, load, options.console));
  *weight_bytes = session.report.weight_bytes;
  const SteadyClock clock;
  Progress progress("speed " + options.models[index], std::ssize(points), "batches", clock,
                    options.console.progress());
  std::vector<SpeedPoint> results;
  for (const SpeedOptions& point : points) {
    progress.update(std::ssize(results));
    results.push_back(QUERN_TRY(measure_speed(*session.model, point, clock)));
  }
  progress.update(std::ssize(results));
  return results;
}

// Quality of every model as served, beside the baseline run exactly: all in one pass.
Result<std::vector<EvalReport>> score(const CompareOptions& options,
                                      Backend& backend,
                                      const std::vector<int32_t>& tokens) {
  const LoadOptions exact{.precision = Precision::kFloat32,
                          .limits = evaluation_limits(options.evaluate, KvDType::kF32)};
  const LoadOptions served{.precision = precision_by_name(options.run.precision),
                           .head = head_format(options.run),
                           .limits = evaluation_limits(options.evaluate, kv_dtype(options.run))};
  std::vector<Session> sessions;
  std::vector<Model*> models;
  for (const std::string& model : options.models) {
    sessions.push_back(QUERN_TRY(
        load_session(model, backend, sessions.empty() ? exact : served, options.console)));
    QUERN_TRY(check_same_vocabulary(sessions.front(), sessions.back()));
    models.push_back(sessions.back().model.get());
  }
  const SteadyClock clock;
  std::unique_ptr<Progress> bar;
  const auto show = [&](int64_t done, int64_t total) {
    if (!bar) {
      bar = std::make_unique<Progress>("quality", total, "windows", clock,
                                       options.console.progress());
    }
    bar->update(done);
  };
  EvaluateProgress progress(show);
  const std::span<Model* const> all(models);
  const bool alone = models.size() == 1;
  auto reports = evaluate(alone ? all : all.subspan(1), alone ? nullptr : models[0], backend.pool(),
                          tokens, options.evaluate, &progress);
  check_interrupt();
  if (!reports || alone) return reports;
  EvalReport baseline = reports->front();
  baseline.perplexity = baseline.divergence->baseline_perplexity;
  baseline.divergence.reset();
  reports->insert(reports->begin(), baseline);
  return reports;
}

Result<Row> price(const CompareOptions& options, Row row) {
  const SpeedPoint& busiest = row.speed.back();
  row.cost_inputs = {.usd_per_hour = options.usd_per_hour,
                     .decode_tokens_per_second = busiest.decode_tokens_per_second,
                     .prefill_tokens_per_second = busiest.prefill_tokens_per_second,
                     .input_tokens = static_cast<double>(busiest.prefill_tokens),
                     .output_tokens = static_cast<double>(busiest.decode_tokens),
                     .utilization = options.utilization,
                     .output_usd_per_million = options.output_usd_per_million,
                     .input_usd_per_million = options.input_usd_per_million};
  row.cost = QUERN_TRY(cost_card(row.cost_inputs));
  return row;
}

void print_rows(const CompareOptions& options, const std::vector<Row>& rows) {
  std::vector<std::pair<std::string, Align>> columns = {{"model", Align::kLeft},
                                                        {"weights", Align::kRight},
                                                        {"perplexity", Align::kRight},
                                                        {"KL (nats)", Align::kRight},
                                                        {"top-1", Align::kRight}};
  for (const int64_t batch : options.batches) {
    columns.emplace_back(fmt::format("tok/s @{}", batch), Align::kRight);
  }
  columns.emplace_back("$/M out", Align::kRight);
  columns.emplace_back("margin", Align::kRight);
  Table table(columns);
  for (size_t i = 0; i < rows.size(); ++i) {
    const Row& row = rows[i];
    const auto& divergence = row.quality.divergence;
    std::vector<std::string> cells = {
        i == 0 ? fmt::format("{} ({}, baseline)", row.model, options.baseline_precision)
               : row.model,
        format_bytes(static_cast<double>(row.weight_bytes)),
        fmt::format("{:.3f}", row.quality.perplexity),
        divergence ? fmt::format("{:.4f}", divergence->mean) : "0",
        divergence ? fmt::format("{:.1f}%", 100 * divergence->top1_agreement) : "100%"};
    for (const SpeedPoint& point : row.speed) {
      cells.push_back(fmt::format("{:.1f}", point.decode_tokens_per_second));
    }
    cells.push_back(format_usd(row.cost.cost_usd_per_million_output_tokens));
    cells.push_back(fmt::format("{:.1f}%", 100 * row.cost.gross_margin));
    table.add(std::move(cells));
  }
  fmt::print("{}\n", table.text());
}

nlohmann::ordered_json to_json(const Row& row, const Disclosure& disclosure) {
  nlohmann::ordered_json json = cost_json(row.cost_inputs, row.cost, disclosure);
  json.erase("disclosure");
  json["model"] = row.model;
  json["weight_bytes"] = row.weight_bytes;
  json["perplexity"] = row.quality.perplexity;
  json["kl_divergence_nats"] = row.quality.divergence ? row.quality.divergence->mean : 0;
  json["top1_agreement"] = row.quality.divergence ? row.quality.divergence->top1_agreement : 1;
  nlohmann::ordered_json rates = nlohmann::ordered_json::object();
  for (const SpeedPoint& point : row.speed) {
    rates[std::to_string(point.batch)] = point.decode_tokens_per_second;
  }
  json["decode_tokens_per_second"] = rates;
  return json;
}

Result<Disclosure> disclose(const CompareOptions& options, Backend& backend) {
  SpeedOptions busiest = options.speed;
  busiest.batch = options.batches.back();
  Disclosure disclosure = measured_disclosure(
      fmt::format("{} as baseline and {} more", options.models[0], options.models.size() - 1),
      options.run, backend, busiest);
  set_disclosure(&disclosure, "quality_text",
                 fmt::format("{}, {} tokens in windows of {}", options.text_file,
                             options.evaluate.max_tokens, options.evaluate.context));
  std::string basis = "stated on the command line";
  if (!options.hardware_file.empty()) {
    const HardwareProfile profile = QUERN_TRY(read_hardware_profile(options.hardware_file));
    basis = fmt::format("{}; {}, {}", profile.name, profile.price_source, profile.price_date);
  }
  add_cost_disclosure(&disclosure,
                      {.usd_per_hour = options.usd_per_hour, .utilization = options.utilization},
                      basis);
  set_disclosure(&disclosure, "prices",
                 fmt::format("{} per million output tokens, {} per million input tokens",
                             format_usd(options.output_usd_per_million),
                             format_usd(options.input_usd_per_million)));
  QUERN_TRY(check_disclosure(disclosure));
  return disclosure;
}

Result<Unit> run_compare(CompareOptions& options) {
  if (options.usd_per_hour == 0 && !options.hardware_file.empty()) {
    options.usd_per_hour = QUERN_TRY(read_hardware_profile(options.hardware_file)).usd_per_hour;
  }
  if (options.usd_per_hour <= 0) {
    return Error{ErrorCode::kInvalidArgument,
                 "compare needs a price of the machine: --hardware FILE or "
                 "--hardware-usd-per-hour H"};
  }
  std::sort(options.batches.begin(), options.batches.end());
  const auto backend = QUERN_TRY(open_backend(options.run));
  const Disclosure disclosure = QUERN_TRY(disclose(options, *backend));
  const auto path = QUERN_TRY(resolve_model(options.models[0]));
  const auto tokenizer = QUERN_TRY(open_tokenizer(path));
  const std::vector<int32_t> tokens = QUERN_TRY(read_token_ids(options.text_file, *tokenizer));
  std::vector<Row> rows;
  for (size_t i = 0; i < options.models.size(); ++i) {
    Row row{.model = options.models[i]};
    row.speed = QUERN_TRY(measure(options, i, *backend, &row.weight_bytes));
    rows.push_back(QUERN_TRY(price(options, std::move(row))));
  }
  const std::vector<EvalReport> reports = QUERN_TRY(score(options, *backend, tokens));
  for (size_t i = 0; i < rows.size(); ++i) rows[i].quality = reports[i];
  if (!options.console.json) {
    print_rows(options, rows);
    fmt::print("{}", disclosure_text(disclosure));
    return Unit{};
  }
  nlohmann::ordered_json models = nlohmann::ordered_json::array();
  for (const Row& row : rows) models.push_back(to_json(row, disclosure));
  print_json({{"models", models}, {"disclosure", disclosure_json(disclosure)}});
  return Unit{};
}

}  // namespace

Action declare_compare(CLI::App& app) {
  auto options = std::make_shared<CompareOptions>();
  app.add_option("models", options->models, "The baseline, then the models to compare with it")
      ->required()
      ->expected(1, 64);
  app.add_option("--text", options->text_file, "Text to score on")->required();
  app.add_option("--max-tokens", options->evaluate.max_tokens, "Tokens of it to use (0: all)")
      ->capture_default_str();
  app.add_option("--context", options->evaluate.context, "Tokens of a window")
      ->check(CLI::Range(int64_t{2}, int64_t{1} << 20))
      ->capture_default_str();
  app.add_option("--baseline-precision", options->baseline_precision,
                 "How the baseline is timed; its quality is that of float32")
      ->check(CLI::IsMember({"fast", "bf16", "float32"}))
      ->capture_default_str();
  app.add_option("--batch", options->batches, "Batches to time, the largest one is priced")
      ->delimiter(',')
      ->check(CLI::Range(int64_t{1}, int64_t{1024}))
      ->capture_default_str();
  app.add_option("--prefill", options->speed.prefill_tokens, "Prompt tokens of a timed sequence")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  app.add_option("--decode", options->speed.decode_tokens, "Tokens written by a timed sequence")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  app.add_option("--repeat", options->speed.repeat, "Repetitions, the best one counts")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--hardware", options->hardware_file,
                 "TOML profile: name, usd_per_hour, price_source, price_date");
  app.add_option("--hardware-usd-per-hour", options->usd_per_hour, "Price of the machine");
  app.add_option("--output-usd-per-million", options->output_usd_per_million,
                 "What a million output tokens sells for")
      ->required();
  app.add_option("--input-usd-per-million", options->input_usd_per_million,
                 "What a million input tokens sells for");
  app.add_option("--utilization", options->utilization, "Busy share of the hour")
      ->capture_default_str();
  add_run_options(app, &options->run);
  add_console_options(app, &options->console);
  return [options] { return run_compare(*options); };
}

}  // namespace quern
