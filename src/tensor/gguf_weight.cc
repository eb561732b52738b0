#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "tensor/formats/dense.h"
#include "tensor/gguf.h"
#include "tensor/gguf_types.h"

namespace quern {
namespace {

constexpr int64_t kChunkElements = int64_t{1} << 16;  // of a thread's piece: 64 KiB of codes

Error unreadable(const GgufTensor& tensor) {
  const GgmlType* type = find_ggml_type(tensor.type);
  return {ErrorCode::kUnsupported,
          fmt::format("{}: tensor \"{}\" has type {} ({}), which cannot be read; known types: {}",
                      tensor.file, tensor.name, tensor.type,
                      type == nullptr ? "unknown" : type->name, format_names())};
}

const std::byte* row_data(const GgufTensor& tensor, int64_t row) {
  const int64_t row_blocks = tensor.columns() / tensor.format->block_elements;
  return tensor.bytes.data() + row * row_blocks * tensor.format->block_bytes;
}

int64_t blocks_of_rows(const GgufTensor& tensor, int64_t rows) {
  return rows * (tensor.columns() / tensor.format->block_elements);
}

void split_rows(const GgufTensor& tensor, int64_t first, int64_t count, GroupedWeight* weight) {
  const int64_t groups = weight->groups();
  GroupParts parts{.codes = weight->codes.data() + first * weight->columns,
                   .scales = weight->scales.data() + first * groups};
  if (!weight->minima.empty()) parts.minima = weight->minima.data() + first * groups;
  tensor.format->split(row_data(tensor, first), blocks_of_rows(tensor, count), parts);
}

Result<Unit> require_finite(const std::vector<float>& values,
                            std::string_view what,
                            const GgufTensor& tensor,
                            int64_t groups) {
  const auto wrong =
      std::find_if(values.begin(), values.end(), [](float x) { return !std::isfinite(x); });
  if (wrong == values.end()) return Unit{};
  const int64_t index = wrong - values.begin();
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{}: tensor \"{}\": the {} of row {}, group {} is {}; expected a finite "
                           "number",
                           tensor.file, tensor.name, what, index / groups, index % groups, *wrong)};
}

Result<Weight> grouped_weight(const GgufTensor& tensor, ThreadPool* pool) {
  const StorageFormat& format = *tensor.format;
  GroupedWeight weight;
  weight.rows = tensor.rows();
  weight.columns = tensor.columns();
  weight.group_size = format.group_size;
  weight.bits = format.bits;
  weight.offset = format.offset;
  weight.codes.resize(static_cast<size_t>(tensor.elements()));
  const auto groups = static_cast<size_t>(weight.rows * weight.groups());
  weight.scales.resize(groups);
  if (format.offset == GroupOffset::kMinimum) {
    weight.minima.resize(groups);
  } else {
    weight.zeros.assign(groups, format.zero);
  }
  if (pool == nullptr) {
    split_rows(tensor, 0, weight.rows, &weight);
  } else {
    const int64_t chunk = std::max<int64_t>(1, kChunkElements / weight.columns);
    pool->for_each_chunk(weight.rows, chunk, [&](int64_t begin, int64_t end, int) {
      split_rows(tensor, begin, end - begin, &weight);
    });
  }
  QUERN_TRY(require_finite(weight.scales, "scale", tensor, weight.groups()));
  QUERN_TRY(require_finite(weight.minima, "minimum", tensor, weight.groups()));
  return Weight(std::move(weight));
}

DType dense_dtype(const StorageFormat& format) {
  if (&format == &kFormatF32) return DType::kF32;
  return &format == &kFormatF16 ? DType::kF16 : DType::kBF16;
}

}  // namespace

void decode_rows(const GgufTensor& tensor, int64_t first, int64_t count, float* out) {
  QUERN_CHECK(tensor.format != nullptr);
  QUERN_CHECK(first >= 0 && count >= 0 && count <= tensor.rows() - first);
  tensor.format->decode(row_data(tensor, first), blocks_of_rows(tensor, count), out);
}

Result<std::vector<float>> read_floats(const GgufTensor& tensor) {
  if (tensor.format == nullptr) return unreadable(tensor);
  std::vector<float> values(static_cast<size_t>(tensor.elements()));
  decode_rows(tensor, 0, tensor.rows(), values.data());
  return values;
}

Result<Weight> make_weight(const GgufTensor& tensor, ThreadPool* pool) {
  if (tensor.format == nullptr) return unreadable(tensor);
  if (tensor.format->split != nullptr) return grouped_weight(tensor, pool);
  const std::string name = fmt::format("{}: tensor \"{}\"", tensor.file, tensor.name);
  return Weight(QUERN_TRY(make_dense_weight(dense_dtype(*tensor.format), tensor.bytes,
                                            {tensor.rows(), tensor.columns()}, name)));
}

}  // namespace quern
