#include "tensor/formats/dense.h"
#include "tensor/formats/formats.h"

namespace quern {
namespace {

void decode(const std::byte* data, int64_t blocks, float* out) {
  widen_floats(DType::kF32, data, blocks, out);
}

}  // namespace

constinit const StorageFormat kFormatF32 = {
    .name = "F32", .ggml_type = 0, .block_elements = 1, .block_bytes = 4, .decode = decode};

}  // namespace quern
