#include <algorithm>

#include <fmt/format.h>

#include "model/quantization.h"
#include "tensor/formats/awq.h"

namespace quern {
namespace {

constexpr int64_t kCodesPerWord = 8;  // 32 bits of 4 each
constexpr int64_t kMaxGroupSize = int64_t{1} << 20;

// The tensors of one module: qweight [K, N / 8], qzeros [K / g, N / 8], scales [K / g, N].
struct Parts {
  const SafetensorsEntry* qweight = nullptr;
  const SafetensorsEntry* qzeros = nullptr;
  const SafetensorsEntry* scales = nullptr;
};

Error parts_disagree(const std::string& module, std::string_view what) {
  return {ErrorCode::kInvalidArgument, fmt::format("{}: {}", module, what)};
}

class AwqScheme final : public QuantizationScheme {
 public:
  AwqScheme(const SafetensorsSet& tensors, int64_t group_size, std::vector<std::string> skipped)
      : tensors_(tensors), group_size_(group_size), skipped_(std::move(skipped)) {}

  std::string_view format() const override { return "awq"; }

  bool holds(const std::string& module) const override {
    return tensors_.find(module + ".qweight") != nullptr;
  }

  Result<WeightInfo> info(const std::string& module) const override {
    const Parts parts = QUERN_TRY(find(module));
    WeightInfo info;
    info.rows = parts.qweight->shape[1] * kCodesPerWord;
    info.columns = parts.qweight->shape[0];
    info.bits = 4;
    info.group_size = static_cast<int>(group_size_ < 0 ? info.columns : group_size_);
    info.format = fmt::format("awq int4 g{}", info.group_size);
    for (const SafetensorsEntry* entry : {parts.qweight, parts.qzeros, parts.scales}) {
      info.bytes += entry->bytes.size();
    }
    return info;
  }

  Result<Weight> read(const std::string& module) const override {
    const Parts parts = QUERN_TRY(find(module));
    const WeightInfo shape = QUERN_TRY(info(module));
    AwqTensors tensors;
    tensors.name = module;
    tensors.qweight = parts.qweight->bytes;
    tensors.qzeros = parts.qzeros->bytes;
    tensors.scales = parts.scales->bytes;
    tensors.scales_dtype = parts.scales->dtype;
    tensors.inputs = shape.columns;
    tensors.outputs = shape.rows;
    tensors.group_size = shape.group_size;
    GroupedWeight weight = QUERN_TRY(unpack_awq(tensors));
    return Weight(group_size_ < 0 ? split_row_groups(std::move(weight)) : std::move(weight));
  }

 private:
  Result<Parts> find(const std::string& module) const {
    const bool skipped = std::any_of(skipped_.begin(), skipped_.end(), [&](const auto& part) {
      return module.find(part) != std::string::npos;
    });
    if (skipped) {
      return parts_disagree(module, "stored as AWQ although \"modules_to_not_convert\" names it");
    }
    Parts parts;
    parts.qweight = QUERN_TRY(entry_of_rank(tensors_, module + ".qweight", 2));
    parts.qzeros = QUERN_TRY(entry_of_rank(tensors_, module + ".qzeros", 2));
    parts.scales = QUERN_TRY(entry_of_rank(tensors_, module + ".scales", 2));
    if (parts.qweight->dtype != DType::kI32 || parts.qzeros->dtype != DType::kI32) {
      return parts_disagree(module, "qweight and qzeros are not both I32");
    }
    return parts;
  }

  const SafetensorsSet& tensors_;
  int64_t group_size_;
  std::vector<std::string> skipped_;
};

std::string lower(std::string text) {
  for (char& c : text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return text;
}

// The value of the first key that is there: older writers used other names.
Result<int64_t> integer_of(const JsonObject& object,
                           std::string_view key,
                           std::string_view older,
                           int64_t min,
                           int64_t max) {
  if (object.find(key) == nullptr && object.find(older) != nullptr) key = older;
  return object.integer(key, std::nullopt, min, max);
}

}  // namespace

Result<std::unique_ptr<QuantizationScheme>> make_awq_scheme(const JsonObject& quantization,
                                                            const SafetensorsSet& tensors) {
  const auto unsupported = [&](std::string_view key, const auto& value, std::string_view known) {
    return Error{ErrorCode::kUnsupported, fmt::format("{}: \"{}\" is {}; supported is {}",
                                                      quantization.source(), key, value, known)};
  };
  const std::string version = lower(QUERN_TRY(quantization.string("version", "gemm")));
  if (version != "gemm") return unsupported("version", version, "gemm");
  const int64_t bits = QUERN_TRY(integer_of(quantization, "bits", "w_bit", 1, 32));
  if (bits != 4) return unsupported("bits", bits, "4");
  const bool zero_point = QUERN_TRY(quantization.boolean("zero_point", true));
  if (!zero_point) return unsupported("zero_point", zero_point, "true");
  const int64_t group_size =
      QUERN_TRY(integer_of(quantization, "group_size", "q_group_size", -1, kMaxGroupSize));
  if (group_size == 0) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: \"group_size\" is 0; expected -1 or a number of columns",
                             quantization.source())};
  }
  auto skipped = QUERN_TRY(string_list(quantization, "modules_to_not_convert"));
  return std::unique_ptr<QuantizationScheme>(
      std::make_unique<AwqScheme>(tensors, group_size, std::move(skipped)));
}

}  // namespace quern
