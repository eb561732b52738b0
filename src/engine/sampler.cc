#include "engine/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "base/clones.h"
#include "base/exp.h"
#include "base/random.h"

namespace quern {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// Candidates with a smaller z than this are left out: a vocabulary of 2^18 of them has the weight
// 2^18 * e^-50 < 2^-54, less than random_uniform() resolves.
constexpr float kLeastZ = -50.0f;

// Integers that compare as their floats do, so that the compiler may vectorise the search.
int32_t ordered_bits(float x) {
  const int32_t bits = std::bit_cast<int32_t>(x);
  return bits ^ ((bits >> 31) & 0x7fffffff);
}

// Of a row: ordered_bits() of the greatest, and the bits of the greatest magnitude.
struct Extremes {
  int32_t greatest = std::numeric_limits<int32_t>::min();
  int32_t magnitude = 0;

  bool all_finite() const { return magnitude < 0x7f800000; }

  // Of a row without NaN.
  float greatest_value() const {
    return std::bit_cast<float>(greatest ^ ((greatest >> 31) & 0x7fffffff));
  }
};

QUERN_CLONES
Extremes extremes_of(const float* row, size_t count) {
  Extremes result;
  for (size_t i = 0; i < count; ++i) {
    result.greatest = std::max(result.greatest, ordered_bits(row[i]));
    result.magnitude = std::max(result.magnitude, std::bit_cast<int32_t>(row[i]) & 0x7fffffff);
  }
  return result;
}

Extremes extremes_of(std::span<const float> row) { return extremes_of(row.data(), row.size()); }

QUERN_CLONES
bool holds(const float* row, size_t count, float value) {
  int found = 0;
  for (size_t i = 0; i < count; ++i) found |= row[i] == value ? 1 : 0;
  return found != 0;
}

// Requires that it is there.
size_t first_position(std::span<const float> row, float value) {
  constexpr size_t kStep = 512;
  size_t at = 0;
  while (at + kStep < row.size() && !holds(row.data() + at, kStep, value)) at += kStep;
  while (row[at] != value) ++at;
  return at;
}

// What a mask allows of a row, and `rest` in the place of what it does not.
QUERN_CLONES
void copy_allowed(float* to, const float* from, const uint32_t* allowed, size_t count, float rest) {
  constexpr size_t kWord = 32;
  size_t begin = 0;
  for (; begin + kWord <= count; begin += kWord, ++allowed) {
    for (size_t i = 0; i < kWord; ++i)
      to[begin + i] = (*allowed >> i & 1) != 0 ? from[begin + i] : rest;
  }
  for (size_t i = begin; i < count; ++i)
    to[i] = (*allowed >> (i - begin) & 1) != 0 ? from[i] : rest;
}

// Whether the choice is not made from the logits as they are.
bool changes_logits(const SamplingContext& context) {
  const SamplingParams& params = context.params;
  return !context.bias.empty() || !context.banned.empty() || !context.allowed.empty() ||
         params.repetition_penalty != 1.0f || params.frequency_penalty != 0.0f ||
         params.presence_penalty != 0.0f;
}

// Which bucket a z lies in: monotonic, so that buckets are in order of likelihood.
size_t bucket_of(float z, float scale) { return static_cast<size_t>(-z * scale); }

// The scale for bucket_of() that spreads all z over all buckets.
float bucket_scale(std::span<const float> z, size_t buckets) {
  constexpr float kLeastSpread = 1e-3f;  // all equal: one bucket takes them all
  int32_t spread = 0;                    // the bits of positive floats compare as the floats do
  for (const float x : z) spread = std::max(spread, std::bit_cast<int32_t>(-x) & 0x7fffffff);
  return static_cast<float>(buckets - 1) / std::max(std::bit_cast<float>(spread), kLeastSpread);
}

// The least z that params let through.
float least_z(const SamplingParams& params) {
  return params.min_p > 0 ? std::max(kLeastZ, std::log(params.min_p)) : kLeastZ;
}

}  // namespace

std::optional<Logprobs> logprobs_of(std::span<const float> logits, int32_t token, int32_t top) {
  const Extremes extremes = extremes_of(logits);
  if (!extremes.all_finite()) return std::nullopt;
  const float greatest = extremes.greatest_value();
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - greatest);
  const double normaliser = static_cast<double>(greatest) + std::log(sum);
  const auto logprob = [&](int32_t id) {
    return static_cast<float>(static_cast<double>(logits[static_cast<size_t>(id)]) - normaliser);
  };
  Logprobs result{.chosen = logprob(token), .top = {}};
  // A heap of the likeliest so far, the least of them in front.
  const auto likelier = [](const TokenLogprob& a, const TokenLogprob& b) {
    return a.logprob > b.logprob || (a.logprob == b.logprob && a.token < b.token);
  };
  auto& heap = result.top;
  const size_t capacity = std::min(static_cast<size_t>(top), logits.size());
  for (size_t i = 0; i < logits.size() && capacity > 0; ++i) {
    const auto id = static_cast<int32_t>(i);
    const TokenLogprob entry{id, logprob(id)};
    if (heap.size() == capacity) {
      if (!likelier(entry, heap.front())) continue;
      std::pop_heap(heap.begin(), heap.end(), likelier);
      heap.pop_back();
    }
    heap.push_back(entry);
    std::push_heap(heap.begin(), heap.end(), likelier);
  }
  std::sort_heap(heap.begin(), heap.end(), likelier);
  return result;
}

Sampler::Sampler(int64_t vocabulary)
    : work_(static_cast<size_t>(vocabulary)),
      counts_(work_.size(), 0),
      z_(work_.size() + 1),
      weight_(work_.size() + 1),
      token_(work_.size() + 1) {
  selection_.reserve(work_.size());
}

std::optional<SampledToken> Sampler::sample(std::span<const float> logits,
                                            const SamplingContext& context) {
  QUERN_CHECK(logits.size() == work_.size());
  Extremes extremes = extremes_of(logits);
  if (!extremes.all_finite()) return std::nullopt;
  std::span<const float> row = logits;
  if (changes_logits(context)) {
    copy_logits(logits, context);
    for (const LogitBias& entry : context.bias)
      work_[static_cast<size_t>(entry.token)] += entry.bias;
    penalise(context);
    for (const int32_t token : context.banned) work_[static_cast<size_t>(token)] = kMinusInfinity;
    row = work_;
    extremes = extremes_of(row);
  }
  const float greatest = extremes.greatest_value();
  if (!std::isfinite(greatest)) return std::nullopt;
  SampledToken result;
  if (context.params.greedy()) {
    result.token = static_cast<int32_t>(first_position(row, greatest));
  } else {
    result.token = draw(row, context, greatest);
  }
  if (context.top_logprobs) {
    result.logprobs = logprobs_of(logits, result.token, *context.top_logprobs);
  }
  return result;
}

void Sampler::penalise(const SamplingContext& context) {
  const SamplingParams& params = context.params;
  // Every token that occurs is visited once: its count is not zero on the first visit only.
  const auto for_each_distinct = [&](std::span<const int32_t> tokens, auto&& change) {
    for (const int32_t token : tokens) ++counts_[static_cast<size_t>(token)];
    for (const int32_t token : tokens) {
      int32_t& count = counts_[static_cast<size_t>(token)];
      if (count != 0) change(work_[static_cast<size_t>(token)], static_cast<float>(count));
      count = 0;
    }
  };
  if (params.repetition_penalty != 1.0f) {
    for_each_distinct(context.tokens, [&](float& z, float) {
      z = z > 0 ? z / params.repetition_penalty : z * params.repetition_penalty;
    });
  }
  if (params.frequency_penalty != 0.0f || params.presence_penalty != 0.0f) {
    const auto output = context.tokens.subspan(static_cast<size_t>(context.prompt_tokens));
    for_each_distinct(output, [&](float& z, float count) {
      z -= count * params.frequency_penalty;
      z -= params.presence_penalty;
    });
  }
}

// What is not allowed stays at minus infinity whatever is added to it.
void Sampler::copy_logits(std::span<const float> logits, const SamplingContext& context) {
  if (context.allowed.empty()) {
    std::copy(logits.begin(), logits.end(), work_.begin());
    return;
  }
  QUERN_CHECK(context.allowed.size() * 32 >= work_.size());
  copy_allowed(work_.data(), logits.data(), context.allowed.data(), work_.size(), kMinusInfinity);
}

int32_t Sampler::draw(std::span<const float> row, const SamplingContext& context, float greatest) {
  const SamplingParams& params = context.params;
  if (params.top_k > 0) {
    gather_top_k(row, params, greatest);
  } else {
    gather(row, params, greatest);
  }
  for (size_t i = 0; i < count_; ++i) weight_[i] = exp_negative(z_[i]);
  if (params.top_p < 1.0f) keep_top_p(static_cast<double>(params.top_p));
  double total = 0;
  for (size_t i = 0; i < count_; ++i) total += static_cast<double>(weight_[i]);
  const double target = total * random_uniform(params.seed, params.stream, context.tokens.size());
  double sum = 0;
  for (size_t i = 0; i < count_; ++i) {
    sum += static_cast<double>(weight_[i]);
    if (target < sum) return token_[i];
  }
  return token_[count_ - 1];
}

void Sampler::gather(std::span<const float> row, const SamplingParams& params, float greatest) {
  const float least_difference = least_z(params) * params.temperature;
  count_ = 0;
  for (size_t i = 0; i < row.size(); ++i) {  // without a branch, which would often be guessed wrong
    const float difference = row[i] - greatest;
    z_[count_] = std::max(difference / params.temperature, kLeastZ);
    token_[count_] = static_cast<int32_t>(i);
    count_ += difference >= least_difference ? 1 : 0;
  }
}

// One pass that keeps what may be among the k greatest: each time twice as many have come together,
// the lesser half goes and the bar rises. A later token that equals the bar loses to lower ids.
void Sampler::gather_top_k(std::span<const float> row,
                           const SamplingParams& params,
                           float greatest) {
  const auto k = static_cast<size_t>(params.top_k);
  const float least_difference = least_z(params) * params.temperature;
  constexpr size_t kLeastCapacity = 256;
  const size_t capacity = std::max(2 * k, kLeastCapacity);
  const auto cut = [&] {
    if (selection_.size() <= k) return;
    const auto end = selection_.begin() + static_cast<ptrdiff_t>(k);
    std::nth_element(selection_.begin(), end - 1, selection_.end(), likelier);
    selection_.erase(end, selection_.end());
  };
  selection_.clear();
  float bar = kMinusInfinity;
  for (size_t i = 0; i < row.size(); ++i) {
    const float difference = row[i] - greatest;
    if (difference < least_difference || difference <= bar) continue;
    selection_.push_back({difference, static_cast<int32_t>(i)});
    if (selection_.size() < capacity) continue;
    cut();
    bar = selection_.back().z;
  }
  cut();
  std::sort(selection_.begin(), selection_.end(),
            [](const Candidate& a, const Candidate& b) { return a.token < b.token; });
  count_ = selection_.size();
  for (size_t i = 0; i < count_; ++i) {
    z_[i] = std::max(selection_[i].z / params.temperature, kLeastZ);
    token_[i] = selection_[i].token;
  }
}

bool Sampler::likelier(const Candidate& a, const Candidate& b) {
  return a.z > b.z || (a.z == b.z && a.token < b.token);
}

void Sampler::keep_top_p(double share) {
  const float scale = bucket_scale({z_.data(), count_}, kBuckets);
  mass_.fill(0);
  for (size_t i = 0; i < count_; ++i) {
    mass_[bucket_of(z_[i], scale)] += static_cast<double>(weight_[i]);
  }
  double total = 0;
  for (const double mass : mass_) total += mass;
  double wanted = share * total;
  size_t bucket = 0;
  for (; bucket + 1 < kBuckets && mass_[bucket] < wanted; ++bucket) wanted -= mass_[bucket];

  selection_.clear();
  for (size_t i = 0; i < count_; ++i) {
    if (bucket_of(z_[i], scale) == bucket) selection_.push_back({z_[i], token_[i]});
  }
  if (selection_.empty()) return;  // rounding alone kept the sum below the share
  std::sort(selection_.begin(), selection_.end(), likelier);
  size_t last = 0;
  for (; last + 1 < selection_.size(); ++last) {
    wanted -= static_cast<double>(exp_negative(selection_[last].z));
    if (wanted <= 0) break;
  }
  keep_up_to(selection_[last]);
}

void Sampler::keep_up_to(Candidate last) {
  size_t kept = 0;
  for (size_t i = 0; i < count_; ++i) {
    z_[kept] = z_[i];
    weight_[kept] = weight_[i];
    token_[kept] = token_[i];
    kept += likelier(last, {z_[i], token_[i]}) ? 0 : 1;
  }
  count_ = kept;
}

}  // namespace quern
