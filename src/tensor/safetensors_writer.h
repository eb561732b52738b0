// Writes safetensors checkpoints in bounded memory: names and shapes first, bytes in any order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "tensor/tensor.h"

namespace quern {

inline constexpr size_t kMaxSafetensorsShards = 512;  // each keeps one file open until finish()

// A tensor that will be written.
struct SafetensorsPlan {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
};

struct SafetensorsWriterOptions {
  uint64_t max_shard_bytes = 5'000'000'000;  // of tensor data; a larger tensor has its own shard
  std::map<std::string, std::string> metadata{};  // beside `format: pt`, which is always there
};

// Fills a directory with `model.safetensors`, or with shards and `model.safetensors.index.json`
// when the tensors do not fit one shard. Nothing appears under its final name before finish(), and
// an object destroyed earlier leaves nothing behind. Data sections begin 8-byte aligned and every
// tensor is aligned for its type. One thread at a time. A failing disk throws std::system_error.
class SafetensorsWriter {
 public:
  // Shards take the tensors in the order of `plan`. The directory exists.
  // Errors: kInvalidArgument for a name given twice, empty, reserved or not UTF-8, a negative
  // dimension, sizes or a header that are too large, or more than kMaxSafetensorsShards shards.
  static Result<SafetensorsWriter> create(const std::filesystem::path& directory,
                                          std::vector<SafetensorsPlan> plan,
                                          SafetensorsWriterOptions options = {});

  SafetensorsWriter(SafetensorsWriter&&) = default;
  SafetensorsWriter& operator=(SafetensorsWriter&&) = default;
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  // The next bytes of tensor `name`: all of them or a piece; tensors may come in any order and
  // interleaved. Requires that the plan has the name and that the bytes still fit.
  void write(std::string_view name, std::span<const std::byte> bytes);

  // Puts the files under their final names, the index last, and removes what a former checkpoint
  // left there in its place (the index beside a single file or the reverse). Requires that every
  // tensor is complete.
  void finish();

  // Bytes of the files, headers included; 0 after finish().
  uint64_t total_bytes() const;

 private:
  struct Slot {
    size_t shard = 0;
    uint64_t offset = 0;  // in the file
    uint64_t bytes = 0;
    uint64_t written = 0;
  };

  struct Shard {
    std::string name;  // the final file name
    std::unique_ptr<AtomicFile> file;
    uint64_t bytes = 0;
  };

  SafetensorsWriter() = default;

  Result<Unit> add_shard(const std::string& name,
                         std::vector<size_t> order,
                         const std::vector<SafetensorsPlan>& plan,
                         const std::vector<uint64_t>& sizes,
                         const std::map<std::string, std::string>& metadata);

  std::filesystem::path directory_;
  std::vector<Shard> shards_;
  std::unordered_map<std::string, Slot> slots_;
  std::string index_json_;  // empty for a single file
};

}  // namespace quern
