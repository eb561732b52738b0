#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/clock.h"
#include "cli/command.h"
#include "cli/console.h"
#include "cli/session.h"
#include "cli/text_input.h"
#include "quant/evaluate.h"

namespace quern {
namespace {

struct EvalOptions {
  ConsoleOptions console;
  RunOptions run;
  std::vector<std::string> models;
  std::string baseline;
  std::string baseline_precision = "float32";
  std::string text_file;
  int64_t self_generated = 0;
  EvaluateOptions evaluate;
};

LoadOptions load_options(const EvalOptions& options, const std::string& precision) {
  RunOptions run = options.run;
  run.precision = precision;
  if (precision != options.run.precision) run.kv.clear();
  return {.precision = precision_by_name(precision),
          .head = head_format(run),
          .limits = evaluation_limits(options.evaluate, kv_dtype(run))};
}

// The text to score: a file, or windows that the baseline (else the model itself) writes.
Result<std::vector<int32_t>> evaluation_tokens(const EvalOptions& options,
                                               const Session& model,
                                               Backend& backend) {
  if (!options.text_file.empty()) {
    const auto tokenizer = QUERN_TRY(open_tokenizer(model.path));
    return read_token_ids(options.text_file, *tokenizer);
  }
  const std::string& author = options.baseline.empty() ? options.models[0] : options.baseline;
  const int64_t windows = std::max<int64_t>(
      1, (options.self_generated + options.evaluate.context - 1) / options.evaluate.context);
  const SelfTextOptions self{.windows = windows, .length = options.evaluate.context};
  const int64_t batch = std::min<int64_t>(windows, 32);
  const LoadOptions load{.precision = Precision::kFast,
                         .limits = {.max_batch_tokens = 512,
                                    .max_logit_rows = batch,
                                    .kv_blocks = kv_blocks_for(batch, self.length + 1)}};
  const Session session = QUERN_TRY(load_session(author, backend, load, options.console));
  const auto texts = QUERN_TRY(self_generated_windows(*session.model, self, options.console));
  std::vector<int32_t> ids;
  for (const auto& text : texts) ids.insert(ids.end(), text.begin(), text.end());
  return ids;
}

// One number of every report, formatted.
template <typename Number>
std::vector<std::string> row_of(std::string name,
                                const char* format,
                                const std::vector<EvalReport>& reports,
                                Number number) {
  std::vector<std::string> cells = {std::move(name)};
  for (const EvalReport& report : reports)
    cells.push_back(fmt::format(fmt::runtime(format), number(report)));
  return cells;
}

void print_reports(const EvalOptions& options, const std::vector<EvalReport>& reports) {
  std::vector<std::pair<std::string, Align>> columns = {{"measure", Align::kLeft}};
  for (const std::string& model : options.models)
    columns.emplace_back(options.models.size() == 1 ? "value" : model, Align::kRight);
  Table table(columns);
  const auto add = [&](const char* name, const char* format, auto number) {
    table.add(row_of(name, format, reports, number));
  };
  add("perplexity", "{:.4f}", [](const EvalReport& r) { return r.perplexity; });
  if (reports[0].divergence) {
    add("baseline perplexity", "{:.4f}",
        [](const EvalReport& r) { return r.divergence->baseline_perplexity; });
    add("KL divergence, mean (nats)", "{:.5f}",
        [](const EvalReport& r) { return r.divergence->mean; });
    add("  standard error", "{:.5f}",
        [](const EvalReport& r) { return r.divergence->mean_standard_error; });
    add("  median", "{:.5f}", [](const EvalReport& r) { return r.divergence->median; });
    add("  99th percentile", "{:.5f}", [](const EvalReport& r) { return r.divergence->p99; });
    add("top-1 agreement", "{:.2f}%",
        [](const EvalReport& r) { return 100 * r.divergence->top1_agreement; });
  }
  fmt::print("{}", table.text());
  const EvalReport& report = reports[0];
  fmt::print(
      "{} tokens scored in {} windows of {}, no overlap, no BOS; precision {}, cache {}; {:.1f} "
      "s\n",
      format_count(report.tokens), report.windows, report.context, options.run.precision,
      kv_dtype_name(kv_dtype(options.run)), report.seconds);
}

nlohmann::ordered_json to_json(const EvalOptions& options,
                               const std::string& model,
                               const EvalReport& report) {
  nlohmann::ordered_json json = nlohmann::ordered_json::parse(report.to_json().dump());
  json["model"] = model;
  json["baseline"] = options.baseline.empty() ? nlohmann::ordered_json(nullptr)
                                              : nlohmann::ordered_json(options.baseline);
  json["text"] = options.text_file.empty() ? "self-generated" : options.text_file;
  json["precision"] = options.run.precision;
  json["kv_cache"] = kv_dtype_name(kv_dtype(options.run));
  return json;
}

Result<Unit> run_eval(const EvalOptions& options) {
  if (options.text_file.empty() == (options.self_generated == 0)) {
    return Error{ErrorCode::kInvalidArgument,
                 "eval needs a text: either --text FILE or --self-generated TOKENS"};
  }
  const auto backend = QUERN_TRY(open_backend(options.run));
  std::vector<Session> sessions;
  std::vector<Model*> models;
  for (const std::string& model : options.models) {
    sessions.push_back(QUERN_TRY(load_session(
        model, *backend, load_options(options, options.run.precision), options.console)));
    QUERN_TRY(check_same_vocabulary(sessions.front(), sessions.back()));
    models.push_back(sessions.back().model.get());
  }
  const std::vector<int32_t> tokens = QUERN_TRY(evaluation_tokens(options, sessions[0], *backend));
  Session baseline;
  if (!options.baseline.empty()) {
    baseline =
        QUERN_TRY(load_session(options.baseline, *backend,
                               load_options(options, options.baseline_precision), options.console));
    QUERN_TRY(check_same_vocabulary(baseline, sessions.front()));
  }
  const SteadyClock clock;
  std::unique_ptr<Progress> bar;
  const auto show = [&](int64_t done, int64_t total) {
    if (!bar) {
      bar = std::make_unique<Progress>("eval", total, "windows", clock, options.console.progress());
    }
    bar->update(done);
  };
  EvaluateProgress progress(show);
  const Result<std::vector<EvalReport>> reports =
      evaluate(models, baseline.model.get(), backend->pool(), tokens, options.evaluate, &progress);
  check_interrupt();
  bar.reset();
  if (!reports) return reports.error();
  if (!options.console.json) {
    print_reports(options, *reports);
    return Unit{};
  }
  nlohmann::ordered_json each = nlohmann::ordered_json::array();
  for (size_t i = 0; i < models.size(); ++i)
    each.push_back(to_json(options, options.models[i], (*reports)[i]));
  print_json(models.size() == 1 ? each[0] : nlohmann::ordered_json{{"models", each}});
  return Unit{};
}

}  // namespace

Action declare_eval(CLI::App& app) {
  auto options = std::make_shared<EvalOptions>();
  app.add_option("models", options->models,
                 "Directories, GGUF files or fetched names; several share one pass of the baseline")
      ->required()
      ->expected(1, 64);
  app.add_option("--text", options->text_file, "Text file to score (or *.jsonl)");
  app.add_option("--self-generated", options->self_generated,
                 "Score this many tokens that the baseline (else the model) writes itself")
      ->check(CLI::Range(int64_t{2}, int64_t{1} << 24));
  app.add_option("--baseline", options->baseline,
                 "The model to compare with: adds KL divergence and top-1 agreement");
  app.add_option("--baseline-precision", options->baseline_precision, "How the baseline is run")
      ->check(CLI::IsMember({"fast", "bf16", "float32"}))
      ->capture_default_str();
  app.add_option("--context", options->evaluate.context, "Tokens of a window")
      ->check(CLI::Range(int64_t{2}, int64_t{1} << 20))
      ->capture_default_str();
  app.add_option("--max-tokens", options->evaluate.max_tokens, "Tokens of the text to use (0: all)")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 40));
  add_run_options(app, &options->run);
  add_console_options(app, &options->console);
  app.footer(
      "--precision fast scores what is served (int8 activations, int8 cache); float32 what the\n"
      "weights alone cost. The baseline is run exactly unless --baseline-precision says "
      "otherwise.");
  return [options] { return run_eval(*options); };
}

}  // namespace quern
