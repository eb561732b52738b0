#include <memory>

#include <fmt/format.h>

#include "base/file.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "cli/command.h"
#include "cli/console.h"
#include "cli/shapes.h"
#include "model/footprint.h"
#include "model/synthetic.h"
#include "quant/synthesize.h"

namespace quern {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxConfigBytes = uint64_t{16} << 20;

struct SynthCommand {
  ConsoleOptions console;
  std::string config;
  std::string format = "awq";
  std::string output;
  uint64_t seed = 0;
  int threads = 0;
  SynthesizeOptions options;
};

struct Config {
  Json json;
  std::string source;
};

// A config.json, the directory of one, or a published shape by its name.
Result<Config> read_config(const std::string& name) {
  std::string known;
  for (const PublishedShape& shape : kPublishedShapes) {
    if (name == shape.name) return Config{config_of(shape), name};
    known += fmt::format("{}{}", known.empty() ? "" : ", ", shape.name);
  }
  const fs::path path = fs::is_directory(name) ? fs::path(name) / "config.json" : fs::path(name);
  if (!fs::exists(path)) {
    return Error{ErrorCode::kNotFound,
                 fmt::format("{}: neither a config.json, nor a directory with one, nor a shape; "
                             "known shapes are {}",
                             name, known)};
  }
  const std::string text = QUERN_TRY(read_file(path, kMaxConfigBytes));
  Config config{QUERN_TRY(parse_json(text, path.string())), path.string()};
  if (config.json.is_object()) {
    config.json.erase("quantization_config");  // of the weights that it came with
    return config;
  }
  return Error{ErrorCode::kInvalidArgument, path.string() + ": not a JSON object"};
}

Result<ExportReport> write(const SynthCommand& command, const Checkpoint& checkpoint) {
  const auto backend = QUERN_TRY(make_backend({.threads = command.threads}));
  const SteadyClock clock;
  std::unique_ptr<Progress> bar;
  const auto show = [&](uint64_t done, uint64_t total) {
    if (!bar) {
      bar = std::make_unique<Progress>("synth", static_cast<int64_t>(total), "bytes", clock,
                                       command.console.progress());
    }
    bar->update(static_cast<int64_t>(done));
    return !interrupted();
  };
  ExportProgress progress(show);
  return synthesize(checkpoint, *backend, command.options, &progress);
}

Result<Unit> run_synth(SynthCommand& command) {
  command.options.format = QUERN_TRY(parse_quant_format(command.format));
  command.options.output = command.output;
  Config config = QUERN_TRY(read_config(command.config));
  const auto checkpoint =
      QUERN_TRY(make_synthetic_checkpoint(std::move(config.json), config.source, command.seed));
  const ModelSpec spec = QUERN_TRY(read_spec(*checkpoint));
  const Result<ExportReport> report = write(command, *checkpoint);
  check_interrupt();
  if (!report) return report.error();
  const int64_t parameters = count_parameters(spec).total();
  if (command.console.json) {
    print_json({{"path", command.output},
                {"architecture", spec.architecture},
                {"parameters", parameters},
                {"bits", command.options.bits},
                {"weight_bytes", report->weight_bytes},
                {"file_bytes", report->file_bytes}});
  } else {
    fmt::print("{}\n  {} of {} parameters, all of them random: {} in the files\n", command.output,
               spec.architecture, format_count(parameters),
               format_bytes(static_cast<double>(report->weight_bytes)));
  }
  return Unit{};
}

}  // namespace

Action declare_synth(CLI::App& app) {
  auto command = std::make_shared<SynthCommand>();
  app.add_option("config", command->config,
                 "A config.json, a directory with one, or the name of a published shape")
      ->required();
  app.add_option("-o,--output", command->output, "Directory to write; must not exist")->required();
  app.add_option("--bits", command->options.bits,
                 "Of the matrices in the blocks: 4, rounded to nearest, or 16 (F16)")
      ->check(CLI::IsMember({4, 16}))
      ->capture_default_str();
  app.add_option("--group-size", command->options.group_size, "Weights that share a scale")
      ->check(CLI::IsMember({32, 64, 128}))
      ->capture_default_str();
  app.add_option("--format", command->format, "awq or compressed-tensors, for 4 bits")
      ->capture_default_str();
  app.add_option("--seed", command->seed, "Of the random numbers")->capture_default_str();
  app.add_option("--threads", command->threads, "Threads (default: every core)")
      ->check(CLI::Range(1, 1024));
  add_console_options(app, &command->console);
  std::string shapes;
  for (const PublishedShape& shape : kPublishedShapes)
    shapes += fmt::format("{}{}", shapes.empty() ? "" : ", ", shape.name);
  app.footer(
      "The result has the size and the speed of the real model and none of its knowledge: measure\n"
      "with `quern bench` what a model will do on this machine before you fetch it. It has no\n"
      "tokenizer. Shapes: " +
      shapes + ".");
  return [command] { return run_synth(*command); };
}

}  // namespace quern
