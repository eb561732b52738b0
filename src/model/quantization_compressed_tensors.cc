#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include <fmt/format.h>

#include "model/quantization.h"
#include "model/target_pattern.h"
#include "tensor/formats/compressed_tensors.h"

namespace quern {
namespace {

constexpr size_t kMaxGroups = 4096;
constexpr size_t kMaxTargets = 65536;
constexpr int64_t kMaxGroupSize = int64_t{1} << 20;

// How codes lie: packed into words, one to a byte, or as FP8.
enum class Layout : uint8_t { kPacked, kBytes, kFloat8 };

struct LayoutName {
  std::string_view name;
  Layout layout;
};

constexpr LayoutName kLayouts[] = {
    {"pack-quantized", Layout::kPacked},
    {"int-quantized", Layout::kBytes},
    {"naive-quantized", Layout::kBytes},
    {"float-quantized", Layout::kFloat8},
};

// One entry of "config_groups".
struct Group {
  std::string name;
  std::string format;
  Layout layout = Layout::kPacked;
  int bits = 4;
  int64_t group_size = -1;  // -1: one scale a row (or for the whole matrix)
  bool symmetric = true;
  Float8Blocks float8_blocks{};
  std::vector<TargetPattern> targets;
};

// The class that a module has in the reference implementation.
std::string_view module_class(std::string_view module) {
  return module.ends_with("embed_tokens") ? "Embedding" : "Linear";
}

bool any_matches(const std::vector<TargetPattern>& patterns, const std::string& module) {
  return std::any_of(patterns.begin(), patterns.end(), [&](const TargetPattern& pattern) {
    return pattern.matches(module, module_class(module));
  });
}

// The tensors of one module.
struct Parts {
  const Group* group = nullptr;
  const SafetensorsEntry* codes = nullptr;  // weight_packed or weight
  const SafetensorsEntry* scale = nullptr;
  const SafetensorsEntry* zero_point = nullptr;  // nullptr when symmetric
  int64_t outputs = 0;
  int64_t inputs = 0;

  int64_t groups() const { return group->group_size < 0 ? 1 : inputs / group->group_size; }
};

Error broken(const std::string& module, const std::string& what) {
  return {ErrorCode::kInvalidArgument, fmt::format("{}: {}", module, what)};
}

bool has_shape(const SafetensorsEntry& entry, int64_t rows, int64_t columns) {
  return entry.shape == std::vector<int64_t>{rows, columns};
}

// Reads zero points of one byte each, -2^(bits-1) to 2^(bits-1) - 1, as codes.
Result<std::vector<uint8_t>> byte_zeros(const Parts& parts, const std::string& module) {
  const int shift = 1 << (parts.group->bits - 1);
  std::vector<uint8_t> zeros(static_cast<size_t>(parts.outputs * parts.groups()),
                             static_cast<uint8_t>(shift));
  if (parts.zero_point == nullptr) return zeros;
  const std::vector<int64_t> stored = QUERN_TRY(read_integers(*parts.zero_point));
  for (size_t i = 0; i < zeros.size(); ++i) {
    if (stored[i] < -shift || stored[i] >= shift) {
      return broken(module, fmt::format("weight_zero_point has {}; expected {} to {}", stored[i],
                                        -shift, shift - 1));
    }
    zeros[i] = static_cast<uint8_t>(stored[i] + shift);
  }
  return zeros;
}

Result<GroupedWeight> read_bytes(const Parts& parts, const std::string& module) {
  const int shift = 1 << (parts.group->bits - 1);
  GroupedWeight weight;
  weight.rows = parts.outputs;
  weight.columns = parts.inputs;
  weight.group_size = static_cast<int>(parts.inputs / parts.groups());
  weight.bits = parts.group->bits;
  weight.scales = QUERN_TRY(read_floats(*parts.scale));
  weight.zeros = QUERN_TRY(byte_zeros(parts, module));
  weight.codes.resize(static_cast<size_t>(parts.outputs * parts.inputs));
  bool fits = true;
  for (size_t i = 0; i < weight.codes.size(); ++i) {
    const int code = static_cast<int8_t>(parts.codes->bytes[i]) + shift;
    fits = fits && code >= 0 && code < 2 * shift;
    weight.codes[i] = static_cast<uint8_t>(code);
  }
  if (!fits) return broken(module, fmt::format("weight has codes beyond {} bits", weight.bits));
  const auto finite = [](float scale) { return std::isfinite(scale); };
  if (!std::all_of(weight.scales.begin(), weight.scales.end(), finite)) {
    return broken(module, "weight_scale has a NaN or infinite number");
  }
  return weight;
}

Result<GroupedWeight> read_packed(const Parts& parts, const std::string& module) {
  CompressedTensors tensors;
  tensors.name = module;
  tensors.weight_packed = parts.codes->bytes;
  tensors.weight_scale = parts.scale->bytes;
  tensors.scale_dtype = parts.scale->dtype;
  tensors.outputs = parts.outputs;
  tensors.inputs = parts.inputs;
  tensors.group_size = parts.group->group_size;
  tensors.bits = parts.group->bits;
  // Writers before zero points were packed stored one in each byte.
  const bool bytes = parts.zero_point != nullptr && parts.zero_point->dtype == DType::kI8;
  if (parts.zero_point != nullptr && !bytes) tensors.weight_zero_point = parts.zero_point->bytes;
  GroupedWeight weight = QUERN_TRY(unpack_compressed_tensors(tensors));
  if (bytes) weight.zeros = QUERN_TRY(byte_zeros(parts, module));
  return weight;
}

class CompressedTensorsScheme final : public QuantizationScheme {
 public:
  CompressedTensorsScheme(const SafetensorsSet& tensors,
                          std::vector<Group> groups,
                          std::vector<TargetPattern> ignored)
      : tensors_(tensors), groups_(std::move(groups)), ignored_(std::move(ignored)) {}

  std::string_view format() const override {
    const bool float8 = std::all_of(groups_.begin(), groups_.end(), [](const Group& group) {
      return group.layout == Layout::kFloat8;
    });
    return float8 && !groups_.empty() ? "fp8" : "compressed-tensors";
  }

  bool holds(const std::string& module) const override {
    return tensors_.find(module + ".weight_packed") != nullptr ||
           tensors_.find(module + ".weight_scale") != nullptr;
  }

  Result<WeightInfo> info(const std::string& module) const override {
    const Group& group = *QUERN_TRY(group_of(module));
    if (group.layout == Layout::kFloat8)
      return float8_info(tensors_, module, *QUERN_TRY(scale_of(module)), group.float8_blocks);
    const Parts parts = QUERN_TRY(find(module, group));
    WeightInfo info;
    info.rows = parts.outputs;
    info.columns = parts.inputs;
    info.bits = parts.group->bits;
    info.group_size = static_cast<int>(parts.inputs / parts.groups());
    info.format = fmt::format("{} int{} g{}", parts.group->format, info.bits, info.group_size);
    info.bytes = parts.codes->bytes.size() + parts.scale->bytes.size();
    if (parts.zero_point != nullptr) info.bytes += parts.zero_point->bytes.size();
    return info;
  }

  Result<Weight> read(const std::string& module) const override {
    const Group& group = *QUERN_TRY(group_of(module));
    if (group.layout == Layout::kFloat8)
      return read_float8(tensors_, module, *QUERN_TRY(scale_of(module)), group.float8_blocks);
    const Parts parts = QUERN_TRY(find(module, group));
    GroupedWeight weight =
        QUERN_TRY(parts.group->layout == Layout::kPacked ? read_packed(parts, module)
                                                         : read_bytes(parts, module));
    return Weight(parts.group->group_size < 0 ? split_row_groups(std::move(weight))
                                              : std::move(weight));
  }

 private:
  Result<const Group*> group_of(const std::string& module) const {
    if (any_matches(ignored_, module)) {
      return broken(module, "stored quantised although \"ignore\" names it");
    }
    for (const Group& group : groups_) {
      if (any_matches(group.targets, module)) return &group;
    }
    return broken(module, "stored quantised although no group of \"config_groups\" targets it");
  }

  Result<const SafetensorsEntry*> scale_of(const std::string& module) const {
    return tensors_.get(module + ".weight_scale");
  }

  Result<Parts> find(const std::string& module, const Group& group) const {
    Parts parts;
    parts.group = &group;
    if (tensors_.find(module + ".weight_g_idx") != nullptr) {
      return Error{ErrorCode::kUnsupported,
                   fmt::format("{}: weight_g_idx is there; columns in another order "
                               "(\"actorder\": \"group\") are not supported",
                               module)};
    }
    QUERN_TRY(find_codes(module, parts));
    parts.scale = QUERN_TRY(scale_of(module));
    if (parts.scale->elements() != parts.outputs * parts.groups()) {
      return broken(module, fmt::format("weight_scale has {} numbers; expected {} rows of {}",
                                        parts.scale->elements(), parts.outputs, parts.groups()));
    }
    if (!parts.group->symmetric) QUERN_TRY(find_zero_point(module, parts));
    return parts;
  }

  Result<Unit> find_codes(const std::string& module, Parts& parts) const {
    if (parts.group->layout == Layout::kPacked) {
      QUERN_TRY(find_packed_codes(module, parts));
    } else {
      parts.codes = QUERN_TRY(entry_of_rank(tensors_, module + ".weight", 2));
      if (parts.codes->dtype != DType::kI8) return broken(module, "weight is not of type I8");
      parts.outputs = parts.codes->shape[0];
      parts.inputs = parts.codes->shape[1];
      if (parts.codes->bytes.empty()) return broken(module, "weight is empty");
    }
    const int64_t size = parts.group->group_size;
    if (size < 0 || parts.inputs % size == 0) return Unit{};
    return broken(module, fmt::format("{} columns are no multiple of \"group_size\", {}",
                                      parts.inputs, size));
  }

  Result<Unit> find_packed_codes(const std::string& module, Parts& parts) const {
    parts.codes = QUERN_TRY(entry_of_rank(tensors_, module + ".weight_packed", 2));
    const SafetensorsEntry* entry = QUERN_TRY(entry_of_rank(tensors_, module + ".weight_shape", 1));
    const std::vector<int64_t> shape = QUERN_TRY(read_integers(*entry));
    const int64_t per_word = 32 / parts.group->bits;
    const int64_t rows = parts.codes->shape[0];
    const int64_t words = parts.codes->shape[1];
    const bool fits = parts.codes->dtype == DType::kI32 && shape.size() == 2 && rows > 0 &&
                      words > 0 && shape[0] == rows && shape[1] > (words - 1) * per_word &&
                      shape[1] <= words * per_word;
    if (!fits) {
      return broken(module, fmt::format("weight_packed of {} x {} words of {} does not fit "
                                        "weight_shape {}",
                                        rows, words, dtype_name(parts.codes->dtype),
                                        fmt::join(shape, " x ")));
    }
    parts.outputs = shape[0];
    parts.inputs = shape[1];
    return Unit{};
  }

  Result<Unit> find_zero_point(const std::string& module, Parts& parts) const {
    parts.zero_point = QUERN_TRY(tensors_.get(module + ".weight_zero_point"));
    const int64_t per_word = 32 / parts.group->bits;
    const SafetensorsEntry& entry = *parts.zero_point;
    const bool bytes =
        entry.dtype == DType::kI8 && entry.elements() == parts.outputs * parts.groups();
    const bool words = parts.group->layout == Layout::kPacked && entry.dtype == DType::kI32 &&
                       has_shape(entry, (parts.outputs + per_word - 1) / per_word, parts.groups());
    if (bytes || words) return Unit{};
    return broken(module, fmt::format("weight_zero_point is {} of shape {}; that does not fit {} "
                                      "rows of {} groups",
                                      dtype_name(entry.dtype), fmt::join(entry.shape, " x "),
                                      parts.outputs, parts.groups()));
  }

  const SafetensorsSet& tensors_;
  std::vector<Group> groups_;
  std::vector<TargetPattern> ignored_;
};

Error unsupported(const JsonObject& object,
                  std::string_view key,
                  std::string_view value,
                  std::string_view known) {
  return {ErrorCode::kUnsupported,
          fmt::format("{}: \"{}\" is \"{}\"; supported is {}", object.source(), key, value, known)};
}

Result<std::vector<TargetPattern>> read_patterns(const JsonObject& object, std::string_view key) {
  const std::vector<std::string> texts = QUERN_TRY(string_list(object, key));
  const std::string source = fmt::format("{}: \"{}\"", object.source(), key);
  if (texts.size() > kMaxTargets) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{} has more than {} entries", source, kMaxTargets)};
  }
  std::vector<TargetPattern> patterns;
  patterns.reserve(texts.size());
  for (const std::string& text : texts) {
    patterns.push_back(QUERN_TRY(TargetPattern::parse(text, source)));
  }
  return patterns;
}

Result<Layout> read_layout(const JsonObject& object, const std::string& format) {
  std::string known;
  for (const LayoutName& name : kLayouts) {
    if (name.name == format) return name.layout;
    known += fmt::format("{}{}", known.empty() ? "" : ", ", name.name);
  }
  return unsupported(object, "format", format, known);
}

// "group_size" of the strategies that Quern reads.
Result<int64_t> read_group_size(const JsonObject& weights) {
  const std::string strategy = QUERN_TRY(weights.string("strategy", "group"));
  if (strategy == "channel") return -1;
  if (strategy != "group") return unsupported(weights, "strategy", strategy, "channel, group");
  return weights.integer("group_size", std::nullopt, 1, kMaxGroupSize);
}

// The blocks that share a scale, by the strategies of FP8.
Result<Float8Blocks> read_float8_strategy(const JsonObject& weights) {
  const std::string strategy = QUERN_TRY(weights.string("strategy", "tensor"));
  if (strategy == "tensor") return Float8Blocks{};
  if (strategy == "channel") return Float8Blocks{.rows = 1};
  if (strategy == "block") return read_float8_blocks(weights, "block_structure");
  return unsupported(weights, "strategy", strategy, "tensor, channel, block");
}

Result<Unit> read_float8_weights(const JsonObject& weights, Group& group) {
  const std::string type = QUERN_TRY(weights.string("type", "int"));
  if (type != "float") return unsupported(weights, "type", type, "float for this format");
  const int64_t bits = QUERN_TRY(weights.integer("num_bits", 8, 1, 32));
  if (bits != 8) return unsupported(weights, "num_bits", std::to_string(bits), "8");
  if (!QUERN_TRY(weights.boolean("symmetric", true)))
    return unsupported(weights, "symmetric", "false", "true for FP8");
  group.float8_blocks = QUERN_TRY(read_float8_strategy(weights));
  return Unit{};
}

Result<Unit> read_weights(const JsonObject& weights, Group& group) {
  if (group.layout == Layout::kFloat8) return read_float8_weights(weights, group);
  const std::string type = QUERN_TRY(weights.string("type", "int"));
  if (type != "int") return unsupported(weights, "type", type, "int");
  const int64_t bits = QUERN_TRY(weights.integer("num_bits", 8, 1, 32));
  if (bits != 4 && bits != 8) {
    return unsupported(weights, "num_bits", std::to_string(bits), "4, 8");
  }
  group.bits = static_cast<int>(bits);
  group.symmetric = QUERN_TRY(weights.boolean("symmetric", true));
  group.group_size = QUERN_TRY(read_group_size(weights));
  return Unit{};
}

Result<JsonObject> member_object(const JsonObject& parent, const std::string& key) {
  const Json* found = parent.find(key);
  const std::string source = fmt::format("{}: {}", parent.source(), key);
  if (found != nullptr && found->is_object()) return JsonObject(*found, source);
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{} is {}", source, found == nullptr ? "missing" : "not an object")};
}

Result<Group> read_group(const JsonObject& object, std::string name, const std::string& format) {
  Group group;
  group.name = std::move(name);
  group.format = QUERN_TRY(object.string("format", format));
  group.layout = QUERN_TRY(read_layout(object, group.format));
  group.targets = QUERN_TRY(read_patterns(object, "targets"));
  const JsonObject weights = QUERN_TRY(member_object(object, "weights"));
  QUERN_TRY(read_weights(weights, group));
  return group;
}

// Mechanisms beside the weights that change what the model computes.
Result<Unit> refuse_transforms(const JsonObject& quantization) {
  for (const std::string_view key : {"sparsity_config", "transform_config"}) {
    const Json* found = quantization.find(key);
    if (found == nullptr || found->empty()) continue;
    if (found->is_object() && found->value("format", Json()) == "dense") continue;
    return Error{ErrorCode::kUnsupported,
                 fmt::format("{}: \"{}\" is not supported", quantization.source(), key)};
  }
  const std::string status = QUERN_TRY(quantization.string("quantization_status", "compressed"));
  if (status == "compressed") return Unit{};
  return unsupported(quantization, "quantization_status", status, "compressed");
}

}  // namespace

Result<std::unique_ptr<QuantizationScheme>> make_compressed_tensors_scheme(
    const JsonObject& quantization, const SafetensorsSet& tensors) {
  QUERN_TRY(refuse_transforms(quantization));
  const std::string format = QUERN_TRY(quantization.string("format", "pack-quantized"));
  const JsonObject entries = QUERN_TRY(member_object(quantization, "config_groups"));
  if (entries.json().size() > kMaxGroups) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{} has more than {} groups", entries.source(), kMaxGroups)};
  }
  std::vector<Group> groups;
  for (const auto& [name, value] : entries.json().items()) {
    const JsonObject object = QUERN_TRY(member_object(entries, name));
    groups.push_back(QUERN_TRY(read_group(object, name, format)));
  }
  auto ignored = QUERN_TRY(read_patterns(quantization, "ignore"));
  return std::unique_ptr<QuantizationScheme>(
      std::make_unique<CompressedTensorsScheme>(tensors, std::move(groups), std::move(ignored)));
}

}  // namespace quern
