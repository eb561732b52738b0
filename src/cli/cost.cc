#include "money/cost.h"

#include <algorithm>
#include <memory>

#include <fmt/format.h>

#include "base/file.h"
#include "base/json.h"
#include "cli/command.h"
#include "cli/console.h"
#include "cli/cost_report.h"

namespace quern {
namespace {

constexpr uint64_t kMaxBenchBytes = uint64_t{16} << 20;

struct CostOptions {
  ConsoleOptions console;
  std::string bench_file;
  std::string hardware_file;
  int64_t batch = 0;
  CostInputs inputs;
  Disclosure stated;  // from the flags below
  std::string model, precision, hardware, batch_text, lengths;
};

// Rates and assumptions of one line of a bench report.
Result<Unit> take_bench(const CostOptions& options, CostInputs* inputs, Disclosure* disclosure) {
  const std::string text = QUERN_TRY(read_file(options.bench_file, kMaxBenchBytes));
  const Json report = QUERN_TRY(parse_json(text, options.bench_file));
  const Error malformed{ErrorCode::kInvalidArgument,
                        fmt::format("{}: not the output of `quern bench --json`: no \"results\" "
                                    "with lines, or no \"disclosure\"",
                                    options.bench_file)};
  if (!report.is_object() || !report.contains("results") || !report["results"].is_array() ||
      report["results"].empty() || !report.contains("disclosure") ||
      !report["disclosure"].is_object()) {
    return malformed;
  }
  const Json* best = nullptr;
  std::string batches;
  for (const Json& line : report["results"]) {
    if (!line.is_object()) return malformed;
    const int64_t batch = QUERN_TRY(JsonObject(line, options.bench_file).integer("batch"));
    batches += fmt::format(" {}", batch);
    if (options.batch == 0 || batch == options.batch) best = &line;  // the last is the largest
  }
  if (best == nullptr) {
    return Error{ErrorCode::kNotFound, fmt::format("{}: no result at batch {}; measured:{}",
                                                   options.bench_file, options.batch, batches)};
  }
  const JsonObject line(*best, options.bench_file);
  inputs->decode_tokens_per_second = QUERN_TRY(line.number("decode_tokens_per_second"));
  inputs->prefill_tokens_per_second = QUERN_TRY(line.number("prefill_tokens_per_second"));
  inputs->input_tokens = static_cast<double>(QUERN_TRY(line.integer("prefill_tokens")));
  inputs->output_tokens = static_cast<double>(QUERN_TRY(line.integer("decode_tokens")));
  for (const auto& [name, value] : report["disclosure"].items()) {
    if (value.is_string()) disclosure->emplace_back(name, value.get<std::string>());
  }
  set_disclosure(disclosure, "batch", fmt::format("{}", QUERN_TRY(line.integer("batch"))));
  return Unit{};
}

Result<Unit> run_cost(const CostOptions& options) {
  CostInputs inputs = options.inputs;
  Disclosure disclosure;
  if (!options.bench_file.empty()) {
    QUERN_TRY(take_bench(options, &inputs, &disclosure));
  } else if (inputs.decode_tokens_per_second > 0) {
    // What was not measured here is the user's word; it is printed as such, never filled in.
    for (const auto& [name, value] : {std::pair{"model", options.model},
                                      {"precision", options.precision},
                                      {"batch", options.batch_text},
                                      {"input_tokens", options.lengths},
                                      {"output_tokens", options.lengths}}) {
      disclosure.emplace_back(name, value.empty() ? "not stated: not comparable" : value);
    }
    disclosure.emplace_back("throughput_basis", "stated on the command line, not measured");
  } else {
    return Error{ErrorCode::kInvalidArgument,
                 "cost needs a throughput: --bench FILE (of `quern bench --json`) or "
                 "--tokens-per-second X"};
  }
  std::string price_basis = "stated on the command line";
  if (!options.hardware_file.empty()) {
    const HardwareProfile profile = QUERN_TRY(read_hardware_profile(options.hardware_file));
    if (inputs.usd_per_hour == 0) inputs.usd_per_hour = profile.usd_per_hour;
    set_disclosure(&disclosure, "hardware", profile.name);
    price_basis = fmt::format("{}, {}", profile.price_source, profile.price_date);
  } else if (!options.hardware.empty()) {
    set_disclosure(&disclosure, "hardware", options.hardware);
  }
  if (inputs.usd_per_hour == 0) {
    return Error{ErrorCode::kInvalidArgument,
                 "cost needs a price of the machine: --hardware-usd-per-hour H or --hardware FILE"};
  }
  const CostCard card = QUERN_TRY(cost_card(inputs));
  add_cost_disclosure(&disclosure, inputs, price_basis);
  QUERN_TRY(check_disclosure(disclosure));
  if (options.console.json) {
    print_json(cost_json(inputs, card, disclosure));
  } else {
    fmt::print("{}\n{}", cost_table(inputs, card), disclosure_text(disclosure));
  }
  return Unit{};
}

}  // namespace

Action declare_cost(CLI::App& app) {
  auto options = std::make_shared<CostOptions>();
  CostInputs& inputs = options->inputs;
  auto* bench = app.add_option("--bench", options->bench_file, "Output of `quern bench --json`");
  app.add_option("--batch", options->batch, "Which line of it (default: the last)")
      ->check(CLI::Range(1, 1 << 20));
  auto* rate = app.add_option("--tokens-per-second", inputs.decode_tokens_per_second,
                              "Output tokens per second, all sequences together");
  rate->excludes(bench);
  app.add_option("--hardware", options->hardware_file,
                 "TOML profile: name, usd_per_hour, price_source, price_date");
  app.add_option("--hardware-usd-per-hour", inputs.usd_per_hour, "Price of the machine");
  app.add_option("--output-usd-per-million", inputs.output_usd_per_million,
                 "What a million output tokens sells for")
      ->required();
  app.add_option("--input-usd-per-million", inputs.input_usd_per_million,
                 "What a million input tokens sells for (with --bench)");
  app.add_option("--utilization", inputs.utilization, "Busy share of the hour, above 0, up to 1")
      ->capture_default_str();
  app.add_option("--model", options->model, "Stated assumption, for the disclosure");
  app.add_option("--precision", options->precision, "Stated assumption, for the disclosure");
  app.add_option("--hardware-name", options->hardware, "Stated assumption, for the disclosure");
  app.add_option("--at-batch", options->batch_text, "Stated assumption, for the disclosure");
  app.add_option("--lengths", options->lengths, "Stated assumption, for the disclosure");
  add_console_options(app, &options->console);
  app.footer(
      "Example: an H200 at $5.616 an hour and 1,500 tokens/s, sold at $2.00 per million:\n"
      "  quern cost --tokens-per-second 1500 --hardware-usd-per-hour 5.616 "
      "--output-usd-per-million 2");
  return [options] { return run_cost(*options); };
}

}  // namespace quern
