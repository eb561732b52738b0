#include <algorithm>
#include <cmath>
#include <cstring>

#include <fmt/format.h>

#include "model/checkpoint_formats.h"
#include "model/gguf_config.h"
#include "tensor/gguf.h"

namespace quern {
namespace {

// Where row `row` of a matrix of heads lies in the file, whose rotation turns adjacent pairs
// (2i, 2i + 1) where Quern's turns halves (i, i + head_dim / 2).
int64_t paired_row(int64_t row, int64_t head_dim) {
  const int64_t in_head = row % head_dim;
  const int64_t half = head_dim / 2;
  return row - in_head + 2 * (in_head % half) + in_head / half;
}

// Copies `row_bytes` for each row from where the file has it.
void permute_rows(
    std::byte* out, const std::byte* in, int64_t rows, size_t row_bytes, int64_t head_dim) {
  for (int64_t row = 0; row < rows; ++row) {
    std::memcpy(out + static_cast<size_t>(row) * row_bytes,
                in + static_cast<size_t>(paired_row(row, head_dim)) * row_bytes, row_bytes);
  }
}

template <typename T>
void permute_vector(std::vector<T>& values, int64_t rows, int64_t head_dim) {
  if (values.empty()) return;
  std::vector<T> out(values.size());
  permute_rows(reinterpret_cast<std::byte*>(out.data()),
               reinterpret_cast<const std::byte*>(values.data()), rows,
               values.size() / static_cast<size_t>(rows) * sizeof(T), head_dim);
  values = std::move(out);
}

Weight permute_weight(Weight weight, int64_t head_dim) {
  if (auto* grouped = std::get_if<GroupedWeight>(&weight)) {
    permute_vector(grouped->codes, grouped->rows, head_dim);
    permute_vector(grouped->scales, grouped->rows, head_dim);
    permute_vector(grouped->zeros, grouped->rows, head_dim);
    permute_vector(grouped->minima, grouped->rows, head_dim);
    return weight;
  }
  const Tensor& from = std::get<DenseWeight>(weight).values;
  const size_t row_bytes =
      static_cast<size_t>(from.shape[1]) * static_cast<size_t>(dtype_bytes(from.dtype));
  DenseWeight out;
  out.owned = Buffer(static_cast<size_t>(from.rows()) * row_bytes);
  out.values = Tensor(out.owned.data(), from.dtype, {from.rows(), from.shape[1]});
  permute_rows(out.owned.data(), static_cast<const std::byte*>(from.data), from.rows(), row_bytes,
               head_dim);
  return Weight(std::move(out));
}

class GgufCheckpoint final : public Checkpoint {
 public:
  GgufCheckpoint(std::filesystem::path path, GgufFile file, GgufConfig config)
      : path_(std::move(path)), file_(std::move(file)), config_(std::move(config)) {}

  const std::filesystem::path& path() const override { return path_; }

  std::string config_source() const override { return path_.string(); }

  const Json& config() const override { return config_.config; }

  const Json& generation_config() const override { return config_.generation; }

  std::string_view format() const override { return "gguf"; }

  std::vector<StoredTensor> tensors() const override {
    std::vector<StoredTensor> out;
    for (const GgufTensor& tensor : file_.tensors()) {
      const std::string format = tensor.format == nullptr ? fmt::format("type {}", tensor.type)
                                                          : std::string(tensor.format->name);
      out.push_back({std::string(tensor.name), format, tensor.shape, tensor.bytes.size()});
    }
    return out;
  }

  bool has_weight(std::string_view module) const override {
    return has_tensor(fmt::format("{}.weight", module));
  }

  bool has_tensor(std::string_view name) const override { return lookup(name) != nullptr; }

  Result<WeightInfo> weight_info(std::string_view module) const override {
    const GgufTensor* tensor = QUERN_TRY(find(fmt::format("{}.weight", module), 2));
    WeightInfo info;
    info.rows = tensor->rows();
    info.columns = tensor->columns();
    info.bytes = tensor->bytes.size();
    if (tensor->format == nullptr) {
      return Error{ErrorCode::kUnsupported,
                   fmt::format("{}: the tensor \"{}\" has storage type {}; supported are {}",
                               path_.string(), tensor->name, tensor->type, format_names())};
    }
    const StorageFormat& format = *tensor->format;
    info.format = format.name;
    info.group_size = format.group_size;
    info.offset = format.offset;
    info.bits =
        format.group_size == 0 ? 8 * format.block_bytes / format.block_elements : format.bits;
    return info;
  }

  Result<Weight> weight(std::string_view module, ThreadPool* pool) const override {
    const GgufTensor* tensor = QUERN_TRY(find(fmt::format("{}.weight", module), 2));
    const int64_t head_dim = QUERN_TRY(paired_head_dim(module, tensor->rows()));
    Weight weight = QUERN_TRY(make_weight(*tensor, pool));
    return head_dim == 0 ? std::move(weight) : permute_weight(std::move(weight), head_dim);
  }

  Result<std::vector<float>> vector(std::string_view name) const override {
    const GgufTensor* tensor = QUERN_TRY(find(std::string(name), 1));
    const std::string_view module = name.substr(0, name.rfind('.'));
    const int64_t head_dim = QUERN_TRY(paired_head_dim(module, tensor->columns()));
    std::vector<float> values = QUERN_TRY(read_floats(*tensor));
    const auto finite = [](float v) { return std::isfinite(v); };
    if (!std::all_of(values.begin(), values.end(), finite)) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("{}: the tensor \"{}\" has a NaN or infinite number", path_.string(),
                               tensor->name)};
    }
    if (head_dim != 0) permute_vector(values, tensor->columns(), head_dim);
    return values;
  }

  uint64_t weight_bytes(std::string_view module) const override {
    const GgufTensor* tensor = lookup(fmt::format("{}.weight", module));
    return tensor == nullptr ? 0 : tensor->bytes.size();
  }

 private:
  const GgufTensor* lookup(std::string_view name) const {
    const auto stored = gguf_name(name);
    return stored ? file_.tensor(*stored) : nullptr;
  }

  Result<const GgufTensor*> find(const std::string& name, size_t rank) const {
    const std::string stored = gguf_name(name).value_or(name);
    const GgufTensor* tensor = file_.tensor(stored);
    if (tensor == nullptr) {
      return Error{ErrorCode::kNotFound, fmt::format("{}: the tensor \"{}\" ({}) is missing",
                                                     path_.string(), stored, name)};
    }
    if (tensor->shape.size() == rank) return tensor;
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: the tensor \"{}\" has {} dimensions; expected {}", path_.string(),
                             stored, tensor->shape.size(), rank)};
  }

  // The width of a head where the rows of `module` lie in pairs, else 0.
  Result<int64_t> paired_head_dim(std::string_view module, int64_t rows) const {
    if (!config_.paired_rotation) return int64_t{0};
    const bool query = module.ends_with("self_attn.q_proj");
    if (!query && !module.ends_with("self_attn.k_proj")) return int64_t{0};
    const int64_t heads = query ? config_.heads : config_.kv_heads;
    if (rows % heads == 0 && rows / heads % 2 == 0) return rows / heads;
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: {} has {} rows; expected {} heads of an even width",
                             path_.string(), module, rows, heads)};
  }

  std::filesystem::path path_;
  GgufFile file_;
  GgufConfig config_;
};

}  // namespace

Result<std::unique_ptr<Checkpoint>> open_gguf_checkpoint(const std::filesystem::path& path) {
  GgufFile file = QUERN_TRY(GgufFile::open(path));
  GgufConfig config = QUERN_TRY(read_gguf_config(file));
  return std::unique_ptr<Checkpoint>(
      std::make_unique<GgufCheckpoint>(path, std::move(file), std::move(config)));
}

}  // namespace quern
