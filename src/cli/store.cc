#include "cli/store.h"

#include <cstdlib>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace quern {
namespace {

namespace fs = std::filesystem;

const char* environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : nullptr;
}

bool is_model_directory(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path / "config.json", ignored);
}

// The only GGUF file in `directory`, or an empty path.
fs::path single_gguf(const fs::path& directory) {
  fs::path found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(directory, ignored)) {
    if (entry.path().extension() != ".gguf") continue;
    if (!found.empty()) return {};
    found = entry.path();
  }
  return found;
}

std::vector<std::string> stored_names() {
  std::vector<std::string> names;
  std::error_code ignored;
  const fs::path store = model_store();
  for (const auto& entry : fs::recursive_directory_iterator(store, ignored)) {
    if (!entry.is_directory(ignored)) continue;
    if (is_model_directory(entry.path()) || !single_gguf(entry.path()).empty()) {
      names.push_back(fs::relative(entry.path(), store, ignored).string());
    }
  }
  return names;
}

}  // namespace

fs::path model_store() {
  if (const char* store = environment("QUERN_MODELS")) return store;
  if (const char* cache = environment("XDG_CACHE_HOME")) return fs::path(cache) / "quern/models";
  const char* home = environment("HOME");
  return fs::path(home != nullptr ? home : "/tmp") / ".cache/quern/models";
}

Result<fs::path> resolve_model(const std::string& model) {
  for (const fs::path& path : {fs::path(model), model_store() / model}) {
    std::error_code ignored;
    if (fs::is_regular_file(path, ignored)) return path;
    if (!fs::is_directory(path, ignored)) continue;
    const fs::path gguf = single_gguf(path);
    if (!is_model_directory(path) && !gguf.empty()) return gguf;
    return path;
  }
  const std::vector<std::string> names = stored_names();
  return Error{ErrorCode::kNotFound,
               fmt::format("{}: no such directory or GGUF file, and no fetched model of that name "
                           "(there {}: {}); `quern pull --list` shows what can be fetched",
                           model, names.size() == 1 ? "is" : "are",
                           names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", ")))};
}

}  // namespace quern
