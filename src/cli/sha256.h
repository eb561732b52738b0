// SHA-256 of files, by OpenSSL.
#pragma once

#include <filesystem>
#include <span>
#include <string>

#include "base/function_ref.h"

namespace quern {

// Lower-case hexadecimal digest of a byte stream.
class Sha256 {
 public:
  Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  ~Sha256();

  void add(std::span<const std::byte> bytes);

  // Call once, at the end.
  std::string hex();

 private:
  void* context_;
};

// Throws std::system_error when the file cannot be read. `progress` is told the bytes done.
std::string sha256_of_file(const std::filesystem::path& path, FunctionRef<void(int64_t)> progress);

}  // namespace quern
