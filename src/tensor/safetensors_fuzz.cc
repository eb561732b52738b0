// Parses any bytes as a safetensors file and reads a little of every tensor.
#include "tensor/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using quern::SafetensorsFile;
  constexpr size_t kMaxEntries = 64;  // read for each input, to keep it fast
  const auto file = SafetensorsFile::parse(std::as_bytes(std::span(data, size)), "fuzz");
  if (!file.has_value()) {
    QUERN_CHECK(!file.error().message.empty());
    return 0;
  }
  size_t read = 0;
  size_t bytes = 0;
  for (const quern::SafetensorsEntry& entry : file->entries()) {
    bytes += entry.bytes.size();
    QUERN_CHECK(file->find(entry.name) == &entry);
    QUERN_CHECK(static_cast<size_t>(entry.elements() * dtype_bytes(entry.dtype)) ==
                entry.bytes.size());
    if (++read > kMaxEntries) continue;
    (void)quern::read_floats(entry).has_value();
    (void)quern::read_integers(entry).has_value();
    if (const auto weight = quern::dense_weight(entry)) {
      QUERN_CHECK(weight->values.elements() == entry.elements());
    }
  }
  QUERN_CHECK(bytes < size);
  return 0;
}
