#include "tensor/formats/dense.h"
#include "tensor/formats/formats.h"

namespace quern {
namespace {

void decode(const std::byte* data, int64_t blocks, float* out) {
  widen_floats(DType::kF16, data, blocks, out);
}

}  // namespace

constinit const StorageFormat kFormatF16 = {
    .name = "F16", .ggml_type = 1, .block_elements = 1, .block_bytes = 2, .decode = decode};

}  // namespace quern
