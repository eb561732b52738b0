#include "tensor/buffer.h"

#include <new>

#include <sys/mman.h>

namespace quern {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kPage = 4096;

constexpr size_t kAlignment = 64;

}  // namespace

// Counts its buffers and the arena that fills it.
struct Buffer::Chunk {
  explicit Chunk(size_t bytes) : memory(bytes) {}

  void release() {
    if (--owners == 0) delete this;
  }

  Buffer memory;
  size_t used = 0;
  int owners = 1;
};

Buffer HugePageArena::allocate(size_t bytes) {
  if (bytes == 0 || bytes > chunk_bytes_ / 4) return Buffer(bytes);
  const size_t size = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (chunk_ == nullptr || chunk_->memory.bytes() - chunk_->used < size) {
    retire();
    chunk_ = new Buffer::Chunk(chunk_bytes_);
  }
  Buffer buffer;
  buffer.data_ = chunk_->memory.data() + chunk_->used;
  buffer.bytes_ = bytes;
  buffer.chunk_ = chunk_;
  chunk_->used += size;
  ++chunk_->owners;
  return buffer;
}

void HugePageArena::retire() {
  if (chunk_ != nullptr) chunk_->release();
  chunk_ = nullptr;
}

Buffer::Buffer(size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  // Over-allocate so that a large buffer can begin on a huge page.
  const bool huge = bytes >= kHugePage;
  mapped_bytes_ = (bytes + kPage - 1) / kPage * kPage;
  const size_t reserve = mapped_bytes_ + (huge ? kHugePage : 0);
  void* mapped =
      ::mmap(nullptr, reserve, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) throw std::bad_alloc();
  auto* begin = static_cast<std::byte*>(mapped);
  if (huge) {
    const size_t address = reinterpret_cast<size_t>(begin);
    const size_t skip = (kHugePage - address % kHugePage) % kHugePage;
    if (skip > 0) ::munmap(begin, skip);
    if (skip < kHugePage) ::munmap(begin + skip + mapped_bytes_, kHugePage - skip);
    begin += skip;
    ::madvise(begin, mapped_bytes_, MADV_HUGEPAGE);
  }
  data_ = begin;
}

Buffer::~Buffer() {
  if (chunk_ != nullptr) {
    chunk_->release();
  } else if (data_ != nullptr) {
    ::munmap(data_, mapped_bytes_);
  }
}

}  // namespace quern
