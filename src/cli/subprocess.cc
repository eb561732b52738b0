#include "cli/subprocess.h"

#include <cerrno>
#include <cstring>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "cli/console.h"

extern char** environ;

namespace quern {

Result<Unit> run_program(const std::vector<std::string>& arguments) {
  QUERN_CHECK(!arguments.empty());
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
  pid_t child = 0;
  const int error = ::posix_spawnp(&child, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("cannot start {}: {}", arguments[0], std::strerror(error))};
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  check_interrupt();
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return Unit{};
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("`{}` failed with status {}", fmt::join(arguments, " "),
                           WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status))};
}

}  // namespace quern
