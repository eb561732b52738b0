#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "base/file.h"
#include "model/checkpoint_formats.h"
#include "model/quantization.h"
#include "tensor/safetensors.h"

namespace quern {
namespace {

constexpr uint64_t kMaxConfigBytes = uint64_t{16} << 20;

// What is read from the directory before the tensors are looked at.
struct Configs {
  Json config = Json::object();
  Json generation = Json::object();
};

Result<Json> read_object(const std::filesystem::path& path) {
  const std::string text = QUERN_TRY(read_file(path, kMaxConfigBytes));
  Json json = QUERN_TRY(parse_json(text, path.string()));
  if (json.is_object()) return json;
  return Error{ErrorCode::kInvalidArgument, fmt::format("{}: not a JSON object", path.string())};
}

class HfCheckpoint final : public Checkpoint {
 public:
  HfCheckpoint(std::filesystem::path directory, Configs configs, SafetensorsSet tensors)
      : path_(std::move(directory)), configs_(std::move(configs)), tensors_(std::move(tensors)) {}

  // Separate from construction, for the scheme keeps a reference to the tensors.
  Result<Unit> read_scheme() {
    const JsonObject config(configs_.config, config_source());
    const Json* quantization = config.find("quantization_config");
    if (quantization == nullptr) return Unit{};
    const std::string source = config.source() + ": quantization_config";
    if (!quantization->is_object()) {
      return Error{ErrorCode::kInvalidArgument, source + " is not an object"};
    }
    scheme_ = QUERN_TRY(make_scheme(JsonObject(*quantization, source), tensors_));
    return Unit{};
  }

  const std::filesystem::path& path() const override { return path_; }

  std::string config_source() const override { return (path_ / "config.json").string(); }

  const Json& config() const override { return configs_.config; }

  const Json& generation_config() const override { return configs_.generation; }

  std::string_view format() const override {
    return scheme_ == nullptr ? "safetensors" : scheme_->format();
  }

  std::vector<StoredTensor> tensors() const override {
    std::vector<StoredTensor> out;
    for (const SafetensorsEntry* entry : tensors_.entries()) {
      out.push_back(
          {entry->name, std::string(dtype_name(entry->dtype)), entry->shape, entry->bytes.size()});
    }
    return out;
  }

  bool has_weight(std::string_view module) const override {
    return quantised(module) || has_tensor(std::string(module) + ".weight");
  }

  bool has_tensor(std::string_view name) const override { return tensors_.find(name) != nullptr; }

  Result<WeightInfo> weight_info(std::string_view module) const override {
    if (quantised(module)) return scheme_->info(std::string(module));
    const SafetensorsEntry* entry = QUERN_TRY(matrix(module));
    WeightInfo info;
    info.rows = entry->shape[0];
    info.columns = entry->shape[1];
    info.format = dtype_name(entry->dtype);
    info.bits = 8 * dtype_bytes(entry->dtype);
    info.bytes = entry->bytes.size();
    return info;
  }

  Result<Weight> weight(std::string_view module, ThreadPool*) const override {
    if (quantised(module)) return scheme_->read(std::string(module));
    const SafetensorsEntry* entry = QUERN_TRY(matrix(module));
    return Weight(QUERN_TRY(dense_weight(*entry)));
  }

  Result<std::vector<float>> vector(std::string_view name) const override {
    const SafetensorsEntry* entry = QUERN_TRY(entry_of_rank(tensors_, std::string(name), 1));
    std::vector<float> values = QUERN_TRY(read_floats(*entry));
    const auto finite = [](float v) { return std::isfinite(v); };
    if (std::all_of(values.begin(), values.end(), finite)) return values;
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: {} has a NaN or infinite number", entry->file, name)};
  }

  uint64_t weight_bytes(std::string_view module) const override {
    const auto info = weight_info(module);
    return info ? info->bytes : 0;
  }

 private:
  bool quantised(std::string_view module) const {
    return scheme_ != nullptr && scheme_->holds(std::string(module));
  }

  Result<const SafetensorsEntry*> matrix(std::string_view module) const {
    const SafetensorsEntry* entry =
        QUERN_TRY(entry_of_rank(tensors_, fmt::format("{}.weight", module), 2));
    const DType dtype = entry->dtype;
    if (dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16) return entry;
    return Error{ErrorCode::kUnsupported,
                 fmt::format("{}: {} is of type {}; supported are F32, F16, BF16", entry->file,
                             entry->name, dtype_name(dtype))};
  }

  std::filesystem::path path_;
  Configs configs_;
  SafetensorsSet tensors_;
  std::unique_ptr<QuantizationScheme> scheme_;  // nullptr: every matrix is plain
};

}  // namespace

Result<std::unique_ptr<Checkpoint>> open_hf_checkpoint(const std::filesystem::path& directory) {
  Configs configs;
  configs.config = QUERN_TRY(read_object(directory / "config.json"));
  const std::filesystem::path generation = directory / "generation_config.json";
  if (std::filesystem::exists(generation)) {
    configs.generation = QUERN_TRY(read_object(generation));
  }
  SafetensorsSet tensors = QUERN_TRY(SafetensorsSet::open(directory));
  auto checkpoint =
      std::make_unique<HfCheckpoint>(directory, std::move(configs), std::move(tensors));
  QUERN_TRY(checkpoint->read_scheme());
  return std::unique_ptr<Checkpoint>(std::move(checkpoint));
}

}  // namespace quern
