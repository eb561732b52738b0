// Requests that may be sent twice, for the tests of this folder.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/random.h"
#include "engine/request.h"

namespace quern {

// Allows about half of the tokens at each step, which ones being a hash of all that it accepted,
// and ends after `length` of them. A token accepted twice or not at all changes the answer.
class HashConstraint final : public TokenConstraint {
 public:
  HashConstraint(uint64_t seed, int64_t vocabulary, int64_t length)
      : state_(seed), vocabulary_(vocabulary), left_(length) {}

  void fill_mask(std::span<uint32_t> mask) override {
    std::fill(mask.begin(), mask.end(), 0u);
    for (int64_t token = 0; token < vocabulary_; ++token) {
      if (allows(token)) mask[static_cast<size_t>(token / 32)] |= 1u << (token % 32);
    }
  }

  void accept(int32_t token) override {
    if (!allows(token)) rejected_ = true;
    state_ = random_bits(state_, 7, static_cast<uint64_t>(token));
    --left_;
  }

  int64_t distance() const override { return left_; }
  int64_t distance_behind(int32_t) override { return left_ - 1; }
  void fill_closing_mask(std::span<uint32_t> mask) override { fill_mask(mask); }

  bool ended() const override { return left_ <= 0; }

  bool allows(int64_t token) const {
    const int64_t always = static_cast<int64_t>(state_ % static_cast<uint64_t>(vocabulary_));
    return token == always || random_bits(state_, 3, static_cast<uint64_t>(token)) % 2 == 0;
  }

  bool rejected() const { return rejected_; }

 private:
  uint64_t state_;
  int64_t vocabulary_;
  int64_t left_;
  bool rejected_ = false;
};

// All of a request but its constraint.
inline Request copy_of(const Request& request) {
  Request copy;
  copy.prompt = request.prompt;
  copy.sampling = request.sampling;
  copy.max_tokens = request.max_tokens;
  copy.min_tokens = request.min_tokens;
  copy.stop = request.stop;
  copy.stop_tokens = request.stop_tokens;
  copy.eos = request.eos;
  copy.top_logprobs = request.top_logprobs;
  copy.logit_bias = request.logit_bias;
  copy.prompt_logprobs = request.prompt_logprobs;
  copy.embedding = request.embedding;
  copy.priority = request.priority;
  copy.tenant = request.tenant;
  copy.tenant_weight = request.tenant_weight;
  copy.cache_salt = request.cache_salt;
  copy.deadline_ns = request.deadline_ns;
  return copy;
}

// Makes the same request, constraint and all, as often as it is asked.
struct RequestRecipe {
  Request request;  // without its constraint
  std::optional<uint64_t> constraint_seed;
  int64_t constraint_length = 0;

  Request make(int64_t vocabulary) const {
    Request copy = copy_of(request);
    if (constraint_seed) {
      copy.constraint =
          std::make_unique<HashConstraint>(*constraint_seed, vocabulary, constraint_length);
    }
    return copy;
  }
};

}  // namespace quern
