// The memory of one rendering: values are never freed singly, so cycles and deep nesting cost
// nothing to destroy, and what a template may allocate is bounded.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/result.h"

namespace quern::jinja {

class Heap {
 public:
  explicit Heap(int64_t limit_bytes) : limit_(limit_bytes) {}
  Heap(const Heap&) = delete;
  Heap& operator=(const Heap&) = delete;

  // One small object. Always succeeds: the caller meets exceeded() at its next step.
  template <typename T>
  T* make(T value) {
    static_assert(std::is_trivially_destructible_v<T> && sizeof(T) <= 256);
    return new (allocate(sizeof(T), alignof(T))) T(value);
  }

  // `count` default-initialised objects. Errors: kInvalidArgument when they do not fit the limit.
  template <typename T>
  Result<std::span<T>> make_array(size_t count) {
    static_assert(std::is_trivially_destructible_v<T>);
    if (count > kMaxArrayBytes / sizeof(T) || !fits(count * sizeof(T))) {
      exceeded_ = true;
      return limit_error();
    }
    T* first = static_cast<T*>(allocate(count * sizeof(T), alignof(T)));
    for (size_t i = 0; i < count; ++i) new (first + i) T();
    return std::span<T>(first, count);
  }

  // A copy of `bytes`. Errors: as make_array.
  Result<std::string_view> copy(std::string_view bytes);

  // Bytes that may still be allocated.
  size_t room() const { return static_cast<size_t>(std::max<int64_t>(limit_ - used_ - held_, 0)); }

  bool fits(size_t bytes) const { return bytes <= room(); }

  // Counts memory outside the heap, such as text that is being built, until it is released.
  void hold(size_t bytes) { held_ += static_cast<int64_t>(bytes); }
  void release(size_t bytes) { held_ -= static_cast<int64_t>(bytes); }

  bool exceeded() const { return exceeded_ || used_ > limit_; }

  Error limit_error() const;

  // Also bounds every size and offset inside one string to what uint32_t holds.
  static constexpr size_t kMaxArrayBytes = size_t{1} << 31;

 private:
  void* allocate(size_t bytes, size_t alignment);

  int64_t limit_;
  int64_t used_ = 0;
  int64_t held_ = 0;
  bool exceeded_ = false;
  std::vector<std::unique_ptr<std::byte[]>> blocks_;
  std::byte* next_ = nullptr;
  size_t left_ = 0;
};

}  // namespace quern::jinja
