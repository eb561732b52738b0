// A directory that appears under its name when all of it is written.
#pragma once

#include <filesystem>

#include "base/result.h"

namespace quern {

// Errors: kConflict when something is there already.
Result<Unit> check_output(const std::filesystem::path& output);

// `path` with a suffix to its name, a slash at the end or not.
std::filesystem::path with_suffix(std::filesystem::path path, const char* suffix);

// An empty directory beside the output, for what is to become it.
std::filesystem::path start_output(const std::filesystem::path& output);

// Gives it the output's name.
void finish_output(const std::filesystem::path& output);

}  // namespace quern
