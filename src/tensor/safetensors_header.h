// The JSON header of a safetensors file, parsed without building a document.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "tensor/tensor.h"

namespace quern {

// A tensor as the header states it, its sizes not yet proven.
struct SafetensorsHeaderEntry {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<uint64_t> shape;
  std::array<uint64_t, 2> data_offsets{};
};

struct SafetensorsHeader {
  std::vector<SafetensorsHeaderEntry> entries;
  std::map<std::string, std::string> metadata;
};

// Memory stays in proportion to `json`, whatever it holds. Unknown fields of a tensor are skipped.
// Errors: kInvalidArgument when it is not one JSON object of the format's shape, or a name or field
// comes twice; kUnsupported for an unknown element type. `source` names the file.
Result<SafetensorsHeader> parse_safetensors_header(std::string_view json, std::string_view source);

// The element type of that name in the format, or nothing.
std::optional<DType> parse_dtype(std::string_view name);

}  // namespace quern
