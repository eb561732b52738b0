#include "tensor/formats/formats.h"

namespace quern {

const StorageFormat* find_format(uint32_t ggml_type) {
  for (const StorageFormat* format : kFormats) {
    if (format->ggml_type == ggml_type) return format;
  }
  return nullptr;
}

const StorageFormat* find_format(std::string_view name) {
  for (const StorageFormat* format : kFormats) {
    if (format->name == name) return format;
  }
  return nullptr;
}

std::string format_names() {
  std::string names;
  for (const StorageFormat* format : kFormats) {
    if (!names.empty()) names += ", ";
    names += format->name;
  }
  return names;
}

}  // namespace quern
