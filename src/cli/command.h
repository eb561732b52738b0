// The shape of a command: a function that declares its options and answers with what to run.
#pragma once

#include <functional>

#include <CLI/CLI.hpp>

#include "base/result.h"

namespace quern {

// Runs after the command line is parsed. An error ends the program with exit_status() of its code.
using Action = std::function<Result<Unit>()>;

// One row of the command table in main.cc.
struct Command {
  const char* name;
  const char* summary;
  Action (*declare)(CLI::App& app);
};

Action declare_bench(CLI::App& app);
Action declare_chat(CLI::App& app);
Action declare_compare(CLI::App& app);
Action declare_completion(CLI::App& app);
Action declare_cost(CLI::App& app);
Action declare_eval(CLI::App& app);
Action declare_generate(CLI::App& app);
Action declare_inspect(CLI::App& app);
Action declare_load(CLI::App& app);
Action declare_logits(CLI::App& app);
Action declare_manual(CLI::App& app);
Action declare_pull(CLI::App& app);
Action declare_quantize(CLI::App& app);
Action declare_serve(CLI::App& app);
Action declare_synth(CLI::App& app);
Action declare_tokenize(CLI::App& app);

}  // namespace quern
