#include <fmt/format.h>

#include "model/quantization.h"
#include "tensor/formats/float8.h"

namespace quern {
namespace {

constexpr int64_t kMaxBlock = int64_t{1} << 20;

// The tensors of one module: weight [N, K] F8_E4M3 and its scales, which multiply it whatever their
// name says.
class Fp8Scheme final : public QuantizationScheme {
 public:
  Fp8Scheme(const SafetensorsSet& tensors, Float8Blocks blocks)
      : tensors_(tensors), blocks_(blocks) {}

  std::string_view format() const override { return "fp8"; }

  bool holds(const std::string& module) const override { return scales_of(module) != nullptr; }

  Result<WeightInfo> info(const std::string& module) const override {
    return float8_info(tensors_, module, *scales_of(module), blocks_);
  }

  Result<Weight> read(const std::string& module) const override {
    return read_float8(tensors_, module, *scales_of(module), blocks_);
  }

 private:
  const SafetensorsEntry* scales_of(const std::string& module) const {
    const SafetensorsEntry* found = tensors_.find(module + ".weight_scale_inv");
    return found != nullptr ? found : tensors_.find(module + ".weight_scale");
  }

  const SafetensorsSet& tensors_;
  Float8Blocks blocks_;
};

// The module's numbers. Errors: kNotFound; kInvalidArgument for another rank or type.
Result<const SafetensorsEntry*> codes_of(const SafetensorsSet& tensors, const std::string& module) {
  const SafetensorsEntry* codes = QUERN_TRY(entry_of_rank(tensors, module + ".weight", 2));
  if (codes->dtype == DType::kF8E4M3 && !codes->bytes.empty()) return codes;
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{}: {} is {} with {} numbers beside scales; expected F8_E4M3",
                           codes->file, codes->name, dtype_name(codes->dtype), codes->elements())};
}

int64_t or_all(int64_t block, int64_t whole) { return block > 0 ? block : whole; }

}  // namespace

Result<Float8Blocks> read_float8_blocks(const JsonObject& object, std::string_view key) {
  const Json* found = object.find(key);
  if (found == nullptr) return Float8Blocks{};
  const auto side = [](const Json& value) {
    return value.is_number_integer() && value.get<int64_t>() > 0 &&
           value.get<int64_t>() <= kMaxBlock;
  };
  if (!found->is_array() || found->size() != 2 || !side((*found)[0]) || !side((*found)[1])) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: \"{}\" is {}; expected two numbers from 1 to {}", object.source(),
                             key, found->dump(), kMaxBlock)};
  }
  return Float8Blocks{(*found)[0].get<int64_t>(), (*found)[1].get<int64_t>()};
}

Result<WeightInfo> float8_info(const SafetensorsSet& tensors,
                               const std::string& module,
                               const SafetensorsEntry& scales,
                               Float8Blocks blocks) {
  const SafetensorsEntry* codes = QUERN_TRY(codes_of(tensors, module));
  WeightInfo info;
  info.rows = codes->shape[0];
  info.columns = codes->shape[1];
  info.format = "F8_E4M3";
  info.bits = 8;
  info.float8_block = or_all(blocks.columns, info.columns);
  info.bytes = codes->bytes.size() + scales.bytes.size();
  return info;
}

Result<Weight> read_float8(const SafetensorsSet& tensors,
                           const std::string& module,
                           const SafetensorsEntry& scales,
                           Float8Blocks blocks) {
  const SafetensorsEntry* codes = QUERN_TRY(codes_of(tensors, module));
  const int64_t rows = codes->shape[0];
  const int64_t columns = codes->shape[1];
  Float8Parts parts{.name = module,
                    .codes = codes->bytes,
                    .shape = {rows, columns},
                    .block_rows = or_all(blocks.rows, rows),
                    .block_columns = or_all(blocks.columns, columns)};
  parts.scales = QUERN_TRY(read_floats(scales));
  return Weight(QUERN_TRY(make_float8_weight(std::move(parts))));
}

Result<std::unique_ptr<QuantizationScheme>> make_fp8_scheme(const JsonObject& quantization,
                                                            const SafetensorsSet& tensors) {
  const std::string format = QUERN_TRY(quantization.string("fmt", "e4m3"));
  if (format != "e4m3" && format != "float8_e4m3fn") {
    return Error{ErrorCode::kUnsupported, fmt::format("{}: \"fmt\" is \"{}\"; supported is e4m3",
                                                      quantization.source(), format)};
  }
  const Float8Blocks blocks = QUERN_TRY(read_float8_blocks(quantization, "weight_block_size"));
  return std::unique_ptr<QuantizationScheme>(std::make_unique<Fp8Scheme>(tensors, blocks));
}

}  // namespace quern
