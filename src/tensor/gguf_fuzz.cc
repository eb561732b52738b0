// Parses any bytes as a GGUF file, asks for every key in every type and decodes every tensor.
#include "tensor/gguf.h"

namespace {

void touch_metadata(const quern::GgufFile& file) {
  for (const auto& [key, value] : file.metadata()) {
    QUERN_CHECK(file.find(key) == &value);
    (void)file.integer(key, 0, INT64_MIN, INT64_MAX).has_value();
    (void)file.number(key).has_value();
    (void)file.boolean(key).has_value();
    (void)file.string(key).has_value();
    (void)file.integers(key).has_value();
    (void)file.numbers(key).has_value();
    (void)file.strings(key).has_value();
  }
}

// A weight widens to what decoding gives, wherever both exist.
void touch_tensor(const quern::GgufTensor& tensor) {
  const auto floats = quern::read_floats(tensor);
  const auto weight = quern::make_weight(tensor);
  if (!weight.has_value()) return;
  QUERN_CHECK(floats.has_value());
  const quern::FloatMatrix wide = quern::widen(*weight);
  for (size_t i = 0; i < floats->size(); ++i) QUERN_CHECK(wide.data()[i] == (*floats)[i]);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr size_t kMaxTensors = 64;  // decoded for each input, to keep it fast
  const auto file = quern::GgufFile::parse(std::as_bytes(std::span(data, size)), "fuzz");
  if (!file.has_value()) {
    QUERN_CHECK(!file.error().message.empty());
    return 0;
  }
  touch_metadata(*file);
  for (size_t i = 0; i < file->tensors().size() && i < kMaxTensors; ++i) {
    touch_tensor(file->tensors()[i]);
  }
  return 0;
}
