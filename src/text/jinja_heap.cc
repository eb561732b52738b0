#include "text/jinja_heap.h"

#include <cstring>

#include <fmt/format.h>

namespace quern::jinja {
namespace {

constexpr size_t kBlockBytes = size_t{64} << 10;

}  // namespace

Error Heap::limit_error() const {
  return Error{
      ErrorCode::kInvalidArgument,
      fmt::format("the rendering needs more than its limit of {} bytes of memory", limit_)};
}

void* Heap::allocate(size_t bytes, size_t alignment) {
  size_t padding = (alignment - reinterpret_cast<uintptr_t>(next_) % alignment) % alignment;
  used_ += static_cast<int64_t>(bytes + padding);
  if (bytes + padding > left_) {
    const size_t block = std::max(bytes, kBlockBytes);
    auto fresh = std::make_unique_for_overwrite<std::byte[]>(block);
    std::byte* start = fresh.get();  // aligned for every fundamental type
    blocks_.push_back(std::move(fresh));
    if (block - bytes < left_) return start;  // the current block has more room left: keep it
    next_ = start + bytes;
    left_ = block - bytes;
    return start;
  }
  std::byte* result = next_ + padding;
  next_ += bytes + padding;
  left_ -= bytes + padding;
  return result;
}

Result<std::string_view> Heap::copy(std::string_view bytes) {
  const std::span<char> target = QUERN_TRY(make_array<char>(bytes.size()));
  if (!bytes.empty()) std::memcpy(target.data(), bytes.data(), bytes.size());
  return std::string_view(target.data(), target.size());
}

}  // namespace quern::jinja
