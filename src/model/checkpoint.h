// A model on disk, whatever its format: a Hugging Face directory (plain, AWQ or compressed-tensors)
// or a GGUF file, seen under the names and keys of Hugging Face.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "tensor/weight.h"

namespace quern {

// One stored tensor as it lies in the files, for inspection and for passing through unchanged.
struct StoredTensor {
  std::string name;    // the checkpoint's own name
  std::string format;  // "F32", "BF16", "Q4_K", ...
  std::vector<int64_t> shape;
  uint64_t bytes = 0;
};

// How the matrix of one linear layer or embedding is stored, told without decoding it.
struct WeightInfo {
  int64_t rows = 0;          // output channels
  int64_t columns = 0;       // input channels
  std::string format;        // "BF16", "Q4_K", "awq int4 g128", "pack-quantized int4 g32"
  int bits = 0;              // of one stored number: 32, 16, 8, 6, 5 or 4
  int group_size = 0;        // columns that share a scale; 0: dense numbers, FP8 among them
  int64_t float8_block = 0;  // columns of an FP8 matrix that share a scale; 0: not FP8
  GroupOffset offset = GroupOffset::kZeroPoint;
  uint64_t bytes = 0;  // in the file, scales included
};

class Checkpoint {
 public:
  // Errors: kNotFound when nothing is there, kInvalidArgument for broken files (named, with the
  // field and the value), kUnsupported for an unknown quantisation method or storage type (named,
  // with the list of what is known).
  static Result<std::unique_ptr<Checkpoint>> open(const std::filesystem::path& path);

  Checkpoint() = default;
  Checkpoint(const Checkpoint&) = delete;
  Checkpoint& operator=(const Checkpoint&) = delete;
  virtual ~Checkpoint() = default;

  virtual const std::filesystem::path& path() const = 0;

  // What messages about the configuration name: the path of config.json or of the GGUF file.
  virtual std::string config_source() const = 0;

  // config.json's object; for GGUF made from its metadata with the same keys.
  virtual const Json& config() const = 0;

  // generation_config.json's object, or an empty one.
  virtual const Json& generation_config() const = 0;

  // "gguf", "safetensors", "awq", "compressed-tensors", "fp8" (whoever wrote it).
  virtual std::string_view format() const = 0;

  virtual std::vector<StoredTensor> tensors() const = 0;

  // Whether MODULE.weight (in whatever form) or the plain tensor MODULE.bias is there.
  virtual bool has_weight(std::string_view module) const = 0;
  virtual bool has_tensor(std::string_view name) const = 0;

  // Shape and form of a matrix. Errors: as weight(), but for its numbers, which it does not read.
  virtual Result<WeightInfo> weight_info(std::string_view module) const = 0;

  // The matrix of a linear layer or embedding, resolved from whatever form it is stored in; a dense
  // one may view the checkpoint's files. Decoding is split over `pool` unless it is nullptr.
  // Errors: kNotFound naming the module; kInvalidArgument for shapes that do not fit each other,
  // NaN or infinite numbers or scales.
  virtual Result<Weight> weight(std::string_view module, ThreadPool* pool) const = 0;

  Result<Weight> weight(std::string_view module) const { return weight(module, nullptr); }

  // A small plain tensor (norm weight, bias) widened to float32. Errors: kNotFound naming it;
  // kInvalidArgument when it is no vector or holds NaN or infinities.
  virtual Result<std::vector<float>> vector(std::string_view name) const = 0;

  // Bytes that the module's matrix takes in the file, scales included. 0 when it is not there.
  virtual uint64_t weight_bytes(std::string_view module) const = 0;
};

}  // namespace quern
