// Builds GGUF files in memory, valid or not, for tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tensor/gguf.h"

namespace quern {

class GgufBuilder {
 public:
  uint32_t magic = 0x46554747;
  uint32_t version = 3;
  int64_t extra_tensors = 0;  // claimed beyond those that are there
  int64_t extra_pairs = 0;
  uint64_t alignment = 32;  // of the data section; the key is the test's own affair

  template <typename T>
  static std::string raw(T value) {
    return std::string(reinterpret_cast<const char*>(&value), sizeof value);
  }

  static std::string text(std::string_view value) {
    return raw<uint64_t>(value.size()) + std::string(value);
  }

  GgufBuilder& pair(std::string_view key, uint32_t type, std::string value) {
    pairs_ += text(key) + raw(type) + std::move(value);
    ++pair_count_;
    return *this;
  }

  GgufBuilder& tensor(std::string_view name,
                      std::vector<uint64_t> dimensions,
                      uint32_t type,
                      uint64_t offset) {
    infos_ += text(name) + raw(static_cast<uint32_t>(dimensions.size()));
    for (const uint64_t dimension : dimensions) infos_ += raw(dimension);
    infos_ += raw(type) + raw(offset);
    ++tensor_count_;
    return *this;
  }

  GgufBuilder& data(std::string bytes) {
    data_ = std::move(bytes);
    return *this;
  }

  std::string build() const {
    std::string file = raw(magic) + raw(version) + raw(tensor_count_ + extra_tensors) +
                       raw(pair_count_ + extra_pairs) + pairs_ + infos_;
    if (!data_.empty()) file.resize((file.size() + alignment - 1) / alignment * alignment);
    return file + data_;
  }

 private:
  std::string pairs_, infos_, data_;
  int64_t pair_count_ = 0;
  int64_t tensor_count_ = 0;
};

// Parses `file`, which the caller keeps alive.
inline Result<GgufFile> parse_gguf(const std::string& file) {
  return GgufFile::parse(std::as_bytes(std::span(file.data(), file.size())), "test.gguf");
}

}  // namespace quern
