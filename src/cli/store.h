// Where fetched models live, and how the MODEL of a command line is found.
#pragma once

#include <filesystem>
#include <string>

#include "base/result.h"

namespace quern {

// $QUERN_MODELS, else $XDG_CACHE_HOME/quern/models, else ~/.cache/quern/models.
std::filesystem::path model_store();

// A directory or file as it is, else a name in the store ("smollm2-135m", "ORG/NAME"). A stored
// model is a directory; one that holds a single GGUF file and no config.json resolves to that file.
// Errors: kNotFound, saying what was looked for, what is in the store and how to fetch.
Result<std::filesystem::path> resolve_model(const std::string& model);

}  // namespace quern
