#include "model/checkpoint.h"

#include <array>
#include <fstream>

#include <fmt/format.h>

#include "model/checkpoint_formats.h"

namespace quern {
namespace {

bool begins_as_gguf(const std::filesystem::path& path) {
  std::array<char, 4> magic{};
  std::ifstream file(path, std::ios::binary);
  file.read(magic.data(), magic.size());
  return file && std::string_view(magic.data(), magic.size()) == "GGUF";
}

}  // namespace

Result<std::unique_ptr<Checkpoint>> Checkpoint::open(const std::filesystem::path& path) {
  std::error_code failure;
  const auto status = std::filesystem::status(path, failure);
  if (!std::filesystem::exists(status)) {
    return Error{ErrorCode::kNotFound, fmt::format("{}: no such file or directory", path.string())};
  }
  if (std::filesystem::is_directory(status)) return open_hf_checkpoint(path);
  if (std::filesystem::is_regular_file(status) && begins_as_gguf(path)) {
    return open_gguf_checkpoint(path);
  }
  return Error{
      ErrorCode::kInvalidArgument,
      fmt::format("{}: neither a GGUF file nor a directory with config.json", path.string())};
}

}  // namespace quern
