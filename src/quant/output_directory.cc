#include "quant/output_directory.h"

namespace quern {

namespace fs = std::filesystem;

Result<Unit> check_output(const fs::path& output) {
  if (!fs::exists(output) || (fs::is_directory(output) && fs::is_empty(output))) return Unit{};
  return Error{ErrorCode::kConflict,
               output.string() + " exists already; remove it or name another output"};
}

fs::path with_suffix(fs::path path, const char* suffix) {
  if (!path.has_filename()) path = path.parent_path();  // "out/" names the directory "out"
  path += suffix;
  return path;
}

fs::path start_output(const fs::path& output) {
  fs::path partial = with_suffix(output, ".part");
  fs::remove_all(partial);
  fs::create_directories(partial);
  return partial;
}

void finish_output(const fs::path& output) {
  fs::rename(with_suffix(output, ".part"), output.has_filename() ? output : output.parent_path());
}

}  // namespace quern
