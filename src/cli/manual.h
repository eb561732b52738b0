// The manual page and the shells' completion, made from the command line that they describe.
#pragma once

#include <string>

#include <CLI/CLI.hpp>

#include "base/result.h"

namespace quern {

// quern(1) in roff (man(7) macros): every command of `app` with every option.
std::string manual_page(const CLI::App& app, const std::string& version);

// A completion script: commands, options, the values of options that take one of a list, files and
// fetched models. Errors: kInvalidArgument unless `shell` is bash, zsh or fish.
Result<std::string> completion_script(const CLI::App& app, const std::string& shell);

}  // namespace quern
