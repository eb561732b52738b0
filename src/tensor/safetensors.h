// Reads safetensors checkpoints, one file or sharded, through memory maps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "tensor/tensor.h"
#include "tensor/weight.h"

namespace quern {

inline constexpr uint64_t kMaxSafetensorsHeaderBytes = 100'000'000;

// One tensor of a checkpoint. `bytes` views the mapped file and lives as long as the
// SafetensorsFile or SafetensorsSet that it came from, moves included. It may begin at any address:
// read it with memcpy, or through the functions below, which copy when they must.
struct SafetensorsEntry {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;  // row-major; empty for a scalar
  std::span<const std::byte> bytes;
  std::string file;  // the path, for messages

  int64_t elements() const;
};

// One file: an 8-byte little-endian header length, at most kMaxSafetensorsHeaderBytes; a JSON
// object that begins with '{' and may be padded with white space; the data section. The tensors
// tile the data section in some order, without hole or overlap, to the end of the file, and no name
// comes twice. Element types have whole bytes.
class SafetensorsFile {
 public:
  // Errors: those of MappedFile::open; kInvalidArgument for a file that breaks a rule;
  // kUnsupported for an element type that Quern does not know (the message lists those it knows).
  static Result<SafetensorsFile> open(const std::filesystem::path& path);

  // The same from memory, which must outlive the object; `source` names it in messages.
  static Result<SafetensorsFile> parse(std::span<const std::byte> bytes, const std::string& source);

  // In the order of the data section.
  const std::vector<SafetensorsEntry>& entries() const { return entries_; }

  // nullptr when there is no such tensor.
  const SafetensorsEntry* find(std::string_view name) const;

  // The header's `__metadata__`; empty when it has none.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
  MappedFile file_;
  std::vector<SafetensorsEntry> entries_;
  std::map<std::string, std::string> metadata_;
  std::unordered_map<std::string_view, size_t> index_;  // views the names of entries_
};

// A checkpoint directory: `model.safetensors`, or the shards that `model.safetensors.index.json`
// names when there is no such file.
class SafetensorsSet {
 public:
  // Errors: those of SafetensorsFile::open; kNotFound when the directory holds neither file or a
  // shard is missing; kInvalidArgument when the index names a tensor that its shard lacks, leaves
  // out one that it has, or names a shard by anything but a plain file name.
  static Result<SafetensorsSet> open(const std::filesystem::path& directory);

  // Of all shards, in the order of their names, then of their data sections.
  std::span<const SafetensorsEntry* const> entries() const { return entries_; }

  // nullptr when there is no such tensor.
  const SafetensorsEntry* find(std::string_view name) const;

  // As find(). Errors: kNotFound, naming the directory and the tensor.
  Result<const SafetensorsEntry*> get(std::string_view name) const;

 private:
  void add_entries();

  std::string directory_;
  std::vector<SafetensorsFile> files_;
  std::vector<const SafetensorsEntry*> entries_;
  std::unordered_map<std::string_view, const SafetensorsEntry*> index_;
};

// The entry as a matrix: a view of the map when it is aligned for its type, else a copy. All
// dimensions but the last are rows; a vector is one row.
// Errors: kInvalidArgument when the entry is not F32, F16 or BF16, is a scalar or empty, or holds a
// NaN or an infinity.
Result<DenseWeight> dense_weight(const SafetensorsEntry& entry);

// All elements widened to float32. Errors: kInvalidArgument when the entry is not F32, F16 or BF16.
Result<std::vector<float>> read_floats(const SafetensorsEntry& entry);

// All elements of an integer entry. Errors: kInvalidArgument for any other type and for a U64
// beyond INT64_MAX.
Result<std::vector<int64_t>> read_integers(const SafetensorsEntry& entry);

}  // namespace quern
