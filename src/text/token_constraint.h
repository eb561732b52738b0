// What an answer may say, told one token at a time: the engine asks before it samples.
#pragma once

#include <cstdint>
#include <span>

namespace quern {

// The state of one answer. Owned by its request and used by one thread at a time.
class TokenConstraint {
 public:
  TokenConstraint() = default;
  TokenConstraint(const TokenConstraint&) = delete;
  TokenConstraint& operator=(const TokenConstraint&) = delete;
  virtual ~TokenConstraint() = default;

  // Writes which tokens may come next: bit (id % 32) of mask[id / 32]. Tokens that end the text are
  // allowed exactly where the answer may end. At least one token is always allowed.
  // mask: [ceil(vocabulary / 32)].
  virtual void fill_mask(std::span<uint32_t> mask) = 0;

  // The fewest tokens that complete the answer from here: 0 where it may end.
  virtual int64_t distance() const = 0;

  // The same behind a token that the last mask allowed.
  virtual int64_t distance_behind(int32_t token) = 0;

  // As fill_mask(), but only tokens that bring the end nearer, or end an answer that may end.
  virtual void fill_closing_mask(std::span<uint32_t> mask) = 0;

  // Goes on by a token that the last mask allowed.
  virtual void accept(int32_t token) = 0;

  // Whether the answer is complete and cannot go on.
  virtual bool ended() const = 0;
};

}  // namespace quern
