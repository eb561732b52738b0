// Files: memory-mapped reading, whole-file reading with a limit, and writing that is either
// complete under its final name or not there at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace quern {

// A read-only mapping of a whole file; owns the mapping. An empty file has an empty span.
class MappedFile {
 public:
  // Errors: kNotFound when the file is missing, kInvalidArgument when it is no regular file or
  // cannot be read (the message names the path and the reason).
  static Result<MappedFile> open(const std::filesystem::path& path);

  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// The whole file. Errors: as MappedFile::open, and kInvalidArgument when it is larger than
// `max_bytes`.
Result<std::string> read_file(const std::filesystem::path& path, uint64_t max_bytes);

// A file being written: bytes go to `path` + ".part" and appear under `path` only by commit(),
// which syncs and renames. Destruction without commit removes the partial file. Every failure of
// the disk throws std::system_error naming the path.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile();

  void write(std::span<const std::byte> bytes);

  // Writes at a position of its own, which does not move the one of write().
  void write_at(uint64_t offset, std::span<const std::byte> bytes);

  void write(std::string_view text) { write(std::as_bytes(std::span(text.data(), text.size()))); }

  void commit();

 private:
  std::filesystem::path path_;
  std::filesystem::path partial_;
  int fd_ = -1;
};

// Writes `text` to `path` through an AtomicFile.
void write_file(const std::filesystem::path& path, std::string_view text);

}  // namespace quern
