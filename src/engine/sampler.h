// Chooses the next token from a row of logits, the same one wherever and whenever it is asked.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "engine/request.h"

namespace quern {

// What a choice depends on, beside the logits.
struct SamplingContext {
  const SamplingParams& params;
  std::span<const int32_t> tokens;       // prompt and output so far
  int64_t prompt_tokens = 0;             // the first of them
  std::span<const int32_t> banned = {};  // never chosen
  std::optional<int32_t> top_logprobs = {};
  std::span<const LogitBias> bias = {};
  std::span<const uint32_t> allowed = {};  // empty: all; else TokenConstraint's mask
};

struct SampledToken {
  int32_t token = 0;
  std::optional<Logprobs> logprobs;
};

// Natural logarithms of softmax(logits) at `token` and at the `top` likeliest. nullopt when a logit
// is not finite.
std::optional<Logprobs> logprobs_of(std::span<const float> logits, int32_t token, int32_t top);

// Applied in this order, z being the logits:
//   1. bias: z += bias
//   2. repetition (arXiv:1909.05858) over prompt and output: z > 0 ? z / penalty : z * penalty
//   3. frequency and presence over the output: z -= count * frequency; z -= presence if count > 0
//   4. banned tokens, and those that are not allowed: z = -infinity
//   5. temperature 0: the greatest z, the lowest id among equals; else z /= temperature
//   6. min-p: tokens below min_p times the greatest probability drop out
//   7. top-k: the k greatest stay, the lowest ids among equals
//   8. top-p (arXiv:1904.09751): of those the smallest set, likeliest first, whose share of their
//      sum reaches top_p
//   9. u = random_uniform(seed, stream, number of tokens so far) walks what is left in order of id
// A pure function of its arguments: batch, threads and preemption cannot change it. Tokens less
// likely than e^-50 of the greatest drop out; all together they weigh less than the random number
// resolves. Owns scratch; owner thread only.
class Sampler {
 public:
  explicit Sampler(int64_t vocabulary);

  // logits: [vocabulary]. nullopt when one is not finite, or when every token is banned.
  std::optional<SampledToken> sample(std::span<const float> logits, const SamplingContext& context);

 private:
  // Buckets of z, likeliest first, find the border of a top-p set without a full sort: only the
  // bucket that holds the border is sorted.
  static constexpr size_t kBuckets = 1024;

  struct Candidate {
    float z = 0;
    int32_t token = 0;
  };

  void penalise(const SamplingContext& context);
  void copy_logits(std::span<const float> logits, const SamplingContext& context);
  // From `row`, the logits or work_, whose greatest is `greatest`.
  int32_t draw(std::span<const float> row, const SamplingContext& context, float greatest);
  void gather(std::span<const float> row, const SamplingParams& params, float greatest);
  void gather_top_k(std::span<const float> row, const SamplingParams& params, float greatest);
  void keep_top_p(double share);
  void keep_up_to(Candidate last);
  static bool likelier(const Candidate& a, const Candidate& b);

  std::vector<float> work_;      // [vocabulary] logits with penalties
  std::vector<int32_t> counts_;  // [vocabulary] zero between calls

  // The candidates in ascending order of token, count_ of them: z = (logit - greatest logit) /
  // temperature, which is at most 0, and e^z. One longer than the vocabulary, because a slot is
  // written before it is known whether it stays.
  std::vector<float> z_, weight_;
  std::vector<int32_t> token_;
  size_t count_ = 0;

  std::vector<Candidate> selection_;   // among which the border of a set is searched
  std::array<double, kBuckets> mass_;  // probability in each bucket of z
};

}  // namespace quern
