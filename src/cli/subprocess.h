// Runs another program and waits for it, without a shell.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace quern {

// The program is found through PATH; its standard output goes to our standard error, so that tables
// and JSON stay clean. Ctrl-C reaches it as well, since it shares the terminal.
// Errors: kUnsupported when it cannot be started, kInvalidArgument when it ends with another status
// than 0; the message names the command.
Result<Unit> run_program(const std::vector<std::string>& arguments);

}  // namespace quern
