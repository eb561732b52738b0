#include <memory>

#include <fmt/format.h>

#include "cli/command.h"
#include "cli/manual.h"

namespace quern {

Action declare_completion(CLI::App& app) {
  const auto shell = std::make_shared<std::string>();
  app.add_option("shell", *shell, "Shell to complete in")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  app.footer(
      "Example:\n  quern completion bash > ~/.local/share/bash-completion/completions/quern");
  return [&app, shell]() -> Result<Unit> {
    fmt::print("{}", QUERN_TRY(completion_script(*app.get_parent(), *shell)));
    return Unit{};
  };
}

Action declare_manual(CLI::App& app) {
  app.group("");  // packages call it; people read `man quern`
  return [&app]() -> Result<Unit> {
    fmt::print("{}", manual_page(*app.get_parent(), QUERN_VERSION));
    return Unit{};
  };
}

}  // namespace quern
