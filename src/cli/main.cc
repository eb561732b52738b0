#include <csignal>
#include <exception>
#include <map>
#include <new>
#include <system_error>

#include <fmt/format.h>

#include "base/interrupt.h"
#include "cli/command.h"
#include "cli/console.h"

namespace quern {
namespace {

constexpr Command kCommands[] = {
    {"pull", "Fetch a model and verify it", declare_pull},
    {"inspect", "Show architecture, parameters, formats and the memory plan", declare_inspect},
    {"quantize", "Write a smaller checkpoint (INT4), verified", declare_quantize},
    {"eval", "Perplexity, KL divergence and agreement on a text", declare_eval},
    {"generate", "Complete one prompt", declare_generate},
    {"chat", "Talk with a model in the terminal", declare_chat},
    {"serve", "Serve models over HTTP, OpenAI-compatible", declare_serve},
    {"load", "Put load on a server and measure its latencies", declare_load},
    {"bench", "Measure speed beside the machine's limits", declare_bench},
    {"cost", "Cost per token, margin and break-even", declare_cost},
    {"compare", "Quality, speed and cost of several models in one table", declare_compare},
    {"synth", "Write a model of random weights, to measure a size that cannot be had",
     declare_synth},
    {"tokenize", "Show the token ids of a text", declare_tokenize},
    {"logits", "Print logits, to compare with other implementations", declare_logits},
    {"completion", "Print a shell's completion script", declare_completion},
    {"manual", "Print the manual page", declare_manual},
};

constexpr const char* kFooter =
    "First steps:\n"
    "  quern pull smollm2-135m\n"
    "  quern chat smollm2-135m\n"
    "  quern quantize smollm2-135m -o small --method best\n"
    "  quern bench small\n\n"
    "Every command takes --help; most take --json (docs/json.md).";

int failed(const Error& error) {
  fmt::print(stderr, "quern: {}\n", error.message);
  return exit_status(error.code);
}

int run(int argc, char** argv) {
  CLI::App app{"Quern: quantise, run, measure and price open-weight language models.", "quern"};
  app.set_version_flag("--version", std::string("quern ") + QUERN_VERSION);
  app.require_subcommand(1);
  app.footer(kFooter);
  std::map<const CLI::App*, Action> actions;
  for (const Command& command : kCommands) {
    CLI::App* sub = app.add_subcommand(command.name, command.summary);
    actions[sub] = command.declare(*sub);
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int status = app.exit(error, std::cout, std::cerr);
    return status == 0 ? 0 : exit_status(ErrorCode::kInvalidArgument);
  }
  const Result<Unit> result = actions.at(app.get_subcommands().front())();
  if (!result) return failed(result.error());
  // A table that went into a full disk or a closed pipe was not delivered.
  if (std::fflush(stdout) != 0) {
    fmt::print(stderr, "quern: standard output: {}\n", std::strerror(errno));
    return kExitWorld;
  }
  return 0;
}

}  // namespace
}  // namespace quern

int main(int argc, char** argv) {
  using quern::kExitWorld;
  quern::install_interrupt_handler();
  std::signal(SIGPIPE, SIG_IGN);  // a closed pipe is an error of the write, not a death
  std::signal(SIGXFSZ, SIG_IGN);  // and so is a file that may not grow
  try {
    return quern::run(argc, argv);
  } catch (const quern::Interrupted&) {
    fmt::print(stderr, "quern: interrupted\n");
    return quern::kExitInterrupted;
  } catch (const std::bad_alloc&) {
    fmt::print(stderr, "quern: out of memory; try a smaller batch, context or memory budget\n");
    return kExitWorld;
  } catch (const std::exception& error) {
    fmt::print(stderr, "quern: {}\n", error.what());
    return kExitWorld;
  }
}
