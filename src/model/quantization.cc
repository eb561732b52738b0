#include "model/quantization.h"

#include <fmt/format.h>

namespace quern {
namespace {

using SchemeMaker = Result<std::unique_ptr<QuantizationScheme>> (*)(const JsonObject& quantization,
                                                                    const SafetensorsSet& tensors);

struct Method {
  std::string_view name;
  SchemeMaker make;
};

constexpr Method kMethods[] = {
    {"awq", make_awq_scheme},
    {"compressed-tensors", make_compressed_tensors_scheme},
    {"fp8", make_fp8_scheme},
};

constexpr int kSplitGroups[] = {128, 64, 32};

}  // namespace

Result<std::unique_ptr<QuantizationScheme>> make_scheme(const JsonObject& quantization,
                                                        const SafetensorsSet& tensors) {
  const std::string name = QUERN_TRY(quantization.string("quant_method"));
  std::string known;
  for (const Method& method : kMethods) {
    if (method.name == name) return method.make(quantization, tensors);
    known += fmt::format("{}{}", known.empty() ? "" : ", ", method.name);
  }
  return Error{ErrorCode::kUnsupported,
               fmt::format("{}: the quantisation method \"{}\" is not supported; known are {}",
                           quantization.source(), name, known)};
}

Result<const SafetensorsEntry*> entry_of_rank(const SafetensorsSet& tensors,
                                              const std::string& name,
                                              size_t rank) {
  const SafetensorsEntry* entry = QUERN_TRY(tensors.get(name));
  if (entry->shape.size() == rank) return entry;
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{}: {} has {} dimensions; expected {}", entry->file, name,
                           entry->shape.size(), rank)};
}

Result<std::vector<std::string>> string_list(const JsonObject& object, std::string_view key) {
  std::vector<std::string> out;
  const Json* found = object.find(key);
  if (found == nullptr) return out;
  bool strings = found->is_array();
  for (const Json& item : *found) {
    if (!strings || !item.is_string()) {
      strings = false;
      break;
    }
    out.push_back(item.get<std::string>());
  }
  if (strings) return out;
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{}: \"{}\" is not an array of strings", object.source(), key)};
}

GroupedWeight split_row_groups(GroupedWeight weight) {
  for (const int size : kSplitGroups) {
    if (weight.group_size <= size || weight.columns % size != 0) continue;
    const auto copies = static_cast<size_t>(weight.group_size / size);
    std::vector<float> scales;
    std::vector<uint8_t> zeros;
    for (size_t row = 0; row < weight.scales.size(); ++row) {
      scales.insert(scales.end(), copies, weight.scales[row]);
      zeros.insert(zeros.end(), copies, weight.zeros[row]);
    }
    weight.group_size = size;
    weight.scales = std::move(scales);
    weight.zeros = std::move(zeros);
    return weight;
  }
  return weight;
}

}  // namespace quern
