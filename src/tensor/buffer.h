// Bytes that one object owns: 64-byte aligned, zeroed, on huge pages when they are large or come
// from an arena.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>

#include "tensor/tensor.h"

namespace quern {

class Buffer {
 public:
  Buffer() = default;

  // Throws std::bad_alloc when the memory cannot be had. Large buffers are zero pages that the
  // first thread to write them places (NUMA first touch).
  explicit Buffer(size_t bytes);
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        bytes_(std::exchange(other.bytes_, 0)),
        mapped_bytes_(std::exchange(other.mapped_bytes_, 0)),
        chunk_(std::exchange(other.chunk_, nullptr)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(mapped_bytes_, other.mapped_bytes_);
    std::swap(chunk_, other.chunk_);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer();

  std::byte* data() const { return data_; }

  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

  size_t bytes() const { return bytes_; }

 private:
  friend class HugePageArena;
  struct Chunk;  // of an arena

  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
  size_t mapped_bytes_ = 0;  // of its own; 0 when it lies in a chunk
  Chunk* chunk_ = nullptr;
};

// Lays many buffers one after another on huge pages, which each alone would be too small for: a
// stream over them then meets no page every 4 KB. A chunk of memory goes when its last buffer does;
// buffers may outlive the arena. One thread at a time, for the buffers as well.
class HugePageArena {
 public:
  explicit HugePageArena(size_t chunk_bytes = size_t{32} << 20) : chunk_bytes_(chunk_bytes) {}
  HugePageArena(const HugePageArena&) = delete;
  HugePageArena& operator=(const HugePageArena&) = delete;
  ~HugePageArena() { retire(); }

  // Throws std::bad_alloc. More than a quarter of a chunk is mapped on its own.
  Buffer allocate(size_t bytes);

 private:
  void retire();

  size_t chunk_bytes_;
  Buffer::Chunk* chunk_ = nullptr;  // being filled
};

// A float32 matrix that owns its memory, for activations and statistics.
class FloatMatrix {
 public:
  FloatMatrix() = default;
  FloatMatrix(int64_t rows, int64_t columns)
      : buffer_(static_cast<size_t>(rows * columns) * sizeof(float)),
        rows_(rows),
        columns_(columns) {}

  Tensor tensor() const { return Tensor(buffer_.data(), DType::kF32, {rows_, columns_}); }

  float* data() const { return buffer_.as<float>(); }

  float* row(int64_t i) const { return data() + i * columns_; }

  int64_t rows() const { return rows_; }

  int64_t columns() const { return columns_; }

 private:
  Buffer buffer_;
  int64_t rows_ = 0;
  int64_t columns_ = 0;
};

}  // namespace quern
