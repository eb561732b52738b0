// Integers that come from files: arithmetic on them either fits or says that it does not.
#pragma once

#include <cstdint>
#include <optional>

namespace quern {

// An unsigned size read from untrusted input. Every operation saturates into an invalid state that
// sticks; value() is empty once anything overflowed.
class CheckedSize {
 public:
  constexpr CheckedSize() = default;

  // NOLINTNEXTLINE(google-explicit-constructor): reads as the integer that it wraps
  constexpr CheckedSize(uint64_t value) : value_(value) {}

  constexpr bool valid() const { return valid_; }

  constexpr std::optional<uint64_t> value() const {
    return valid_ ? std::optional<uint64_t>(value_) : std::nullopt;
  }

  // True when the value is valid and at most `limit`.
  constexpr bool fits(uint64_t limit) const { return valid_ && value_ <= limit; }

  friend constexpr CheckedSize operator+(CheckedSize a, CheckedSize b) {
    CheckedSize r;
    r.valid_ = a.valid_ && b.valid_ && !__builtin_add_overflow(a.value_, b.value_, &r.value_);
    return r;
  }

  friend constexpr CheckedSize operator*(CheckedSize a, CheckedSize b) {
    CheckedSize r;
    r.valid_ = a.valid_ && b.valid_ && !__builtin_mul_overflow(a.value_, b.value_, &r.value_);
    return r;
  }

  // Rounds up to a multiple of `alignment`, which is not zero.
  constexpr CheckedSize align(uint64_t alignment) const {
    const CheckedSize up = *this + (alignment - 1);
    CheckedSize r;
    r.valid_ = up.valid_;
    r.value_ = up.value_ / alignment * alignment;
    return r;
  }

 private:
  uint64_t value_ = 0;
  bool valid_ = true;
};

}  // namespace quern
