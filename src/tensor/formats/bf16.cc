#include "tensor/formats/dense.h"
#include "tensor/formats/formats.h"

namespace quern {
namespace {

void decode(const std::byte* data, int64_t blocks, float* out) {
  widen_floats(DType::kBF16, data, blocks, out);
}

}  // namespace

constinit const StorageFormat kFormatBF16 = {
    .name = "BF16", .ggml_type = 30, .block_elements = 1, .block_bytes = 2, .decode = decode};

}  // namespace quern
