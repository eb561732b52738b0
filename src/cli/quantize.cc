#include "quant/quantize.h"

#include <algorithm>
#include <memory>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/file.h"
#include "cli/command.h"
#include "cli/console.h"
#include "cli/session.h"
#include "cli/store.h"
#include "cli/text_input.h"

namespace quern {
namespace {

namespace fs = std::filesystem;

struct QuantizeCommand {
  ConsoleOptions console;
  std::string model;
  std::string output;
  std::string format = "awq";
  std::string calibration_file;
  std::string memory_budget = "8GiB";
  std::string outer = "keep";
  int64_t windows = 128;
  int64_t window_length = 512;
  int threads = 0;
  bool plan_only = false;
  QuantizeOptions options;
};

OuterMatrices outer_by_name(const std::string& name) {
  if (name == "head") return OuterMatrices::kHead;
  if (name == "head-and-embedding") return OuterMatrices::kHeadAndEmbedding;
  return OuterMatrices::kKeep;
}

// The windows to calibrate on: from the file, else written by the model.
Result<CalibrationWindows> calibration(const QuantizeCommand& command,
                                       const fs::path& path,
                                       Backend& backend) {
  const Quantizer* method = find_quantizer(command.options.method);
  if (method == nullptr || !method->calibrates) return CalibrationWindows();
  if (!command.calibration_file.empty()) {
    const auto tokenizer = QUERN_TRY(open_tokenizer(path));
    const std::vector<int32_t> ids =
        QUERN_TRY(read_token_ids(command.calibration_file, *tokenizer));
    CalibrationWindows windows = spaced_windows(ids, command.windows, command.window_length);
    if (!windows.empty()) return windows;
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: {} tokens; calibration needs at least one window of {}",
                             command.calibration_file, ids.size(), command.window_length)};
  }
  const SelfTextOptions self{.windows = command.windows, .length = command.window_length};
  const int64_t batch = std::min<int64_t>(self.windows, 32);
  const LoadOptions load{.precision = Precision::kFast,
                         .limits = {.max_batch_tokens = 512,
                                    .max_logit_rows = batch,
                                    .kv_blocks = kv_blocks_for(batch, self.length + 1)}};
  const Session session = QUERN_TRY(load_session(command.model, backend, load, command.console));
  return self_generated_windows(*session.model, self, command.console);
}

// The files that make a tokenizer of a Hugging Face directory.
constexpr const char* kTokenizerFiles[] = {"tokenizer.json",
                                           "tokenizer_config.json",
                                           "tokenizer.model",
                                           "vocab.json",
                                           "merges.txt",
                                           "added_tokens.json",
                                           "chat_template.json",
                                           "chat_template.jinja",
                                           "special_tokens_map.json",
                                           "LICENSE"};

Result<Unit> add_tokenizer(const fs::path& source, const fs::path& directory) {
  if (fs::is_directory(source)) {
    for (const char* name : kTokenizerFiles) {
      if (fs::exists(source / name)) fs::copy_file(source / name, directory / name);
    }
    return Unit{};
  }
  const auto tokenizer = QUERN_TRY(open_tokenizer(source));
  const Result<std::string> chat_template = open_chat_template(source);
  write_file(directory / "tokenizer.json", tokenizer->to_json());
  write_file(directory / "tokenizer_config.json",
             tokenizer->to_config_json(chat_template ? *chat_template : std::string()));
  return Unit{};
}

void print_plan(const QuantizePlan& plan) {
  fmt::print(stderr,
             "plan: {} matrices in {} blocks; {} of {} calibration windows ({} held out), {} "
             "tokens; memory {}; result about {}\n",
             plan.linears, plan.blocks, plan.windows, plan.windows_given, plan.held_out_windows,
             format_count(plan.tokens), format_bytes(static_cast<double>(plan.memory_bytes)),
             format_bytes(static_cast<double>(plan.estimated_weight_bytes)));
  for (const std::string& note : plan.notes) fmt::print(stderr, "  {}\n", note);
}

void print_report(const QuantizeReport& report) {
  double loss = 0;
  double rtn_loss = 0;
  int64_t reverted = 0;
  for (const BlockReport& block : report.layers) {
    for (const LinearReport& linear : block.linears) {
      const double rows = static_cast<double>(linear.rows);
      loss += linear.loss * rows;
      rtn_loss += linear.rtn_loss * rows;
      reverted += linear.reverted_groups;
    }
  }
  fmt::print("{}\n", report.output.string());
  Table table({{"", Align::kLeft}, {"", Align::kRight}});
  table.add({"method", fmt::format("{}, {} bits, groups of {}, {}", report.method, report.bits,
                                   report.group_size, quant_format_name(report.format))});
  table.add({"weights before", format_bytes(static_cast<double>(report.source_bytes))});
  table.add({"weights after", format_bytes(static_cast<double>(report.weight_bytes))});
  if (rtn_loss > 0) {
    table.add({"output error against round to nearest, held out",
               fmt::format("{:.1f}%", 100 * loss / rtn_loss)});
    table.add({"groups that went back to round to nearest", format_count(reverted)});
  }
  table.add({"tensors reopened and compared", format_count(report.verified_tensors)});
  table.add({"time", fmt::format("{:.1f} s", report.seconds)});
  table.add({"peak memory", format_bytes(static_cast<double>(report.peak_rss_bytes))});
  const std::string text = table.text();
  fmt::print("{}", text.substr(text.find('\n') + 1));
  for (const std::string& note : report.notes) fmt::print("note: {}\n", note);
}

Result<QuantizeReport> run_job(const QuantizeCommand& command,
                               const Checkpoint& checkpoint,
                               Backend& backend,
                               const CalibrationWindows& windows) {
  const SteadyClock clock;
  std::unique_ptr<Progress> bar;
  const auto show = [&](int64_t done, int64_t total, std::string_view note) {
    if (!bar) {
      bar =
          std::make_unique<Progress>("quantize", total, "steps", clock, command.console.progress());
    }
    bar->note(std::string(note));
    bar->update(done);
  };
  QuantizeProgress progress(show);
  const auto complete = [&](const fs::path& directory) {
    return add_tokenizer(checkpoint.path(), directory);
  };
  FinishOutput finish(complete);
  return quantize({.checkpoint = &checkpoint,
                   .backend = &backend,
                   .calibration = &windows,
                   .progress = &progress,
                   .finish = &finish},
                  command.options);
}

Result<Unit> run_quantize(QuantizeCommand& command) {
  command.options.format = QUERN_TRY(parse_quant_format(command.format));
  command.options.memory_budget_bytes = QUERN_TRY(parse_bytes(command.memory_budget));
  command.options.outer = outer_by_name(command.outer);
  command.options.output = command.output;
  const fs::path path = QUERN_TRY(resolve_model(command.model));
  const auto checkpoint = QUERN_TRY(Checkpoint::open(path));
  const auto backend = QUERN_TRY(make_backend({.threads = command.threads}));
  // Refuses what cannot work before any calibration text is made.
  if (find_quantizer(command.options.method) == nullptr) {
    return plan_quantize(*checkpoint, {}, command.options).error();
  }
  const CalibrationWindows windows = QUERN_TRY(calibration(command, path, *backend));
  const QuantizePlan plan = QUERN_TRY(plan_quantize(*checkpoint, windows, command.options));
  if (!command.console.quiet) print_plan(plan);
  if (command.plan_only) return Unit{};
  const Result<QuantizeReport> report = run_job(command, *checkpoint, *backend, windows);
  check_interrupt();
  if (!report) return report.error();
  if (command.console.json) {
    print_json(nlohmann::ordered_json::parse(report->to_json().dump()));
  } else {
    print_report(*report);
  }
  return Unit{};
}

}  // namespace

Action declare_quantize(CLI::App& app) {
  auto command = std::make_shared<QuantizeCommand>();
  QuantizeOptions& options = command->options;
  app.add_option("model", command->model, "Directory, GGUF file or fetched name")->required();
  app.add_option("-o,--output", command->output, "Directory to write; must not exist")->required();
  app.add_option("--method", options.method,
                 "rtn: round to nearest; awq: activation-aware scales and clipping; best: that, "
                 "then error feedback and correction")
      ->capture_default_str();
  app.add_option("--bits", options.bits, "Bits of a weight")
      ->check(CLI::IsMember({4}))
      ->capture_default_str();
  app.add_option("--group-size", options.group_size, "Weights that share a scale")
      ->check(CLI::IsMember({32, 64, 128}))
      ->capture_default_str();
  app.add_option("--format", command->format, "awq or compressed-tensors")->capture_default_str();
  app.add_option("--calibration", command->calibration_file,
                 "Text or *.jsonl (default: text that the model writes itself)");
  app.add_option("--calibration-windows", command->windows, "Windows to calibrate on")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  app.add_option("--calibration-length", command->window_length, "Tokens of a window")
      ->check(CLI::Range(int64_t{8}, int64_t{1} << 16))
      ->capture_default_str();
  app.add_option("--outer", command->outer,
                 "Matrices outside the blocks that become INT4 too: keep, head or "
                 "head-and-embedding")
      ->check(CLI::IsMember({"keep", "head", "head-and-embedding"}))
      ->capture_default_str();
  app.add_option("--memory-budget", command->memory_budget, "What the run may allocate")
      ->capture_default_str();
  app.add_option("--work-directory", options.work_directory,
                 "Where finished blocks are kept (default: OUTPUT.work)");
  app.add_option("--threads", command->threads, "Threads (default: every core)")
      ->check(CLI::Range(1, 1024));
  app.add_flag("--plan", command->plan_only, "Show the plan and stop");
  add_console_options(app, &command->console);
  app.footer(
      "The output is a Hugging Face directory that transformers, vLLM and Quern load. It appears\n"
      "under its name complete and verified, or not at all; a run that was stopped continues.");
  return [command] { return run_quantize(*command); };
}

}  // namespace quern
