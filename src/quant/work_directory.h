// Finished blocks on disk, so that a killed run loses one block at most.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>

#include "base/result.h"
#include "quant/block_quantizer.h"

namespace quern {

// A key for everything that a result depends on; 128 bits, not meant to resist an adversary.
class WorkKey {
 public:
  void add(std::span<const std::byte> bytes);
  void add(std::string_view text) { add(std::as_bytes(std::span(text.data(), text.size()))); }
  std::string text() const;  // 32 hexadecimal digits

 private:
  uint64_t a_ = 0x6a09e667f3bcc908u;
  uint64_t b_ = 0xbb67ae8584caa73bu;
};

class WorkDirectory {
 public:
  // Takes up the work that lies there under the same key; removes what lies there under another
  // one. Errors: kInvalidArgument when the path holds something that is no work directory.
  static Result<WorkDirectory> open(std::filesystem::path path, const std::string& key);

  const std::filesystem::path& path() const { return path_; }

  // Nothing when the block is not there, or not whole.
  std::optional<QuantizedBlock> load(int64_t index) const;

  // Throws std::system_error when the disk fails.
  void save(int64_t index, const QuantizedBlock& block) const;

  void remove() const;

 private:
  explicit WorkDirectory(std::filesystem::path path) : path_(std::move(path)) {}

  std::filesystem::path block_path(int64_t index) const;

  std::filesystem::path path_;
};

}  // namespace quern
