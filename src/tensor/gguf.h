// Reads GGUF model files, versions 2 and 3, through a memory map.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "tensor/formats/formats.h"
#include "tensor/weight.h"

namespace quern {

// A metadata value. Strings view the file; floats of 32 bits are widened exactly. Integer arrays
// hold what fits int64_t; an unsigned value beyond INT64_MAX is refused.
struct GgufValue {
  using Nested = std::vector<GgufValue>;

  std::variant<int64_t,
               double,
               bool,
               std::string_view,
               std::vector<int64_t>,
               std::vector<double>,
               std::vector<bool>,
               std::vector<std::string_view>,
               Nested>
      value;
};

// One tensor. Views live as long as the GgufFile, moves included. `bytes` may begin at any address
// that is a multiple of the file's alignment, which may be 1.
struct GgufTensor {
  std::string_view name;
  uint32_t type = 0;                      // ggml's id
  const StorageFormat* format = nullptr;  // nullptr when Quern cannot read the type
  std::vector<int64_t> shape;             // row-major: [rows, columns]; the file has the reverse
  std::span<const std::byte> bytes;       // empty when the type's size is unknown
  std::string file;                       // the path, for messages

  // All dimensions but the last; 1 for a vector.
  int64_t rows() const;

  int64_t columns() const { return shape.back(); }

  int64_t elements() const { return rows() * columns(); }
};

class GgufFile {
 public:
  // Errors: those of MappedFile::open; kInvalidArgument for a file that is truncated, has counts or
  // sizes beyond its end, tensors that overlap, or is big-endian; kUnsupported for another version.
  // A tensor of a type that Quern cannot read is listed; only reading it fails.
  static Result<GgufFile> open(const std::filesystem::path& path);

  // The same from memory, which must outlive the object; `source` names it in messages.
  static Result<GgufFile> parse(std::span<const std::byte> bytes, std::string source);

  const std::string& source() const { return source_; }

  uint32_t version() const { return version_; }

  // Keys in the order of the file.
  const std::vector<std::pair<std::string_view, GgufValue>>& metadata() const { return metadata_; }

  // nullptr when the key is absent.
  const GgufValue* find(std::string_view key) const;

  // Each returns `fallback` (or kInvalidArgument without one) when the key is absent, and
  // kInvalidArgument, naming file and key, when it is there with another type or outside
  // [min, max]. Integers of every width and sign are one type, and so are floats; number() also
  // takes integers.
  Result<int64_t> integer(std::string_view key,
                          std::optional<int64_t> fallback = std::nullopt,
                          int64_t min = 0,
                          int64_t max = int64_t{1} << 40) const;
  Result<double> number(std::string_view key, std::optional<double> fallback = std::nullopt) const;
  Result<bool> boolean(std::string_view key, std::optional<bool> fallback = std::nullopt) const;
  Result<std::string> string(std::string_view key,
                             std::optional<std::string> fallback = std::nullopt) const;

  // Arrays, viewed in place. Errors: kInvalidArgument when absent or of another type.
  Result<std::span<const int64_t>> integers(std::string_view key) const;
  Result<std::span<const double>> numbers(std::string_view key) const;
  Result<std::span<const std::string_view>> strings(std::string_view key) const;

  // In the order of the file.
  const std::vector<GgufTensor>& tensors() const { return tensors_; }

  // nullptr when there is no such tensor.
  const GgufTensor* tensor(std::string_view name) const;

 private:
  friend class GgufParser;

  Error missing(std::string_view key) const;
  Error wrong(std::string_view key, std::string_view expected) const;
  template <typename T>
  Result<std::span<const T>> array(std::string_view key, std::string_view expected) const;

  std::string source_;
  MappedFile file_;
  uint32_t version_ = 0;
  std::vector<std::pair<std::string_view, GgufValue>> metadata_;
  std::unordered_map<std::string_view, size_t> keys_;
  std::vector<GgufTensor> tensors_;
  std::unordered_map<std::string_view, size_t> names_;
};

// The whole tensor as float32. Errors: kUnsupported when its type cannot be read (the message lists
// those that can).
Result<std::vector<float>> read_floats(const GgufTensor& tensor);

// Rows [first, first + count) as float32 into out[count * columns()]; any number of threads at
// once. Requires tensor.format != nullptr and rows within the tensor.
void decode_rows(const GgufTensor& tensor, int64_t first, int64_t count, float* out);

// The whole tensor as a weight, exactly: F32, F16 and BF16 stay as they are, a view of the map when
// it is aligned for its type; every other format becomes a GroupedWeight. Rows are split over
// `pool` when there is one.
// Errors: kUnsupported as read_floats; kInvalidArgument, naming the tensor, when a scale, a minimum
// or a dense value is NaN or infinite.
Result<Weight> make_weight(const GgufTensor& tensor, ThreadPool* pool = nullptr);

}  // namespace quern
