// Sequences with random queries, keys and values, run through either backend's cache and attention
// in any order of steps; and attention in float64 to compare with. For tests.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <numbers>
#include <vector>

#include "base/random.h"
#include "kernels/backend.h"
#include "tensor/buffer.h"

namespace quern::testing_attention {

inline float gaussian(uint64_t seed, uint64_t stream, uint64_t position) {
  const double radius = std::sqrt(-2 * std::log(1 - random_uniform(seed, stream, 2 * position)));
  const double turn = 2 * std::numbers::pi * random_uniform(seed, stream, 2 * position + 1);
  return static_cast<float>(radius * std::cos(turn));
}

struct Shape {
  KvLayout layout;
  int heads = 0;
  int64_t window = 0;

  AttentionParams params() const {
    return {heads, 1.0f / std::sqrt(static_cast<float>(layout.head_dim)), window};
  }

  int64_t query_width() const { return int64_t{heads} * layout.head_dim; }

  int64_t kv_width() const { return int64_t{layout.kv_heads} * layout.head_dim; }
};

struct SequenceData {
  FloatMatrix q, k, v;

  int64_t tokens() const { return q.rows(); }
};

inline FloatMatrix gaussian_matrix(int64_t rows, int64_t columns, uint64_t seed, float scale) {
  FloatMatrix m(rows, columns);
  for (int64_t i = 0; i < rows * columns; ++i) {
    m.data()[i] = scale * gaussian(seed, 0, static_cast<uint64_t>(i));
  }
  return m;
}

inline SequenceData random_sequence(const Shape& shape, int64_t tokens, uint64_t seed) {
  return {gaussian_matrix(tokens, shape.query_width(), 3 * seed, 1.0f),
          gaussian_matrix(tokens, shape.kv_width(), 3 * seed + 1, 1.0f),
          gaussian_matrix(tokens, shape.kv_width(), 3 * seed + 2, 1.0f)};
}

// The operators of one backend.
struct Operators {
  std::function<size_t(const KvLayout&)> block_bytes;
  std::function<void(const KvLayer&, Tensor, Tensor, std::span<const SequenceSpan>)> store;
  std::function<void(
      Tensor, Tensor, const KvLayer&, std::span<const SequenceSpan>, const AttentionParams&)>
      attend;
  std::function<void(const KvLayer&, int32_t, int, int, float*, float*)> load;
};

// Rows of one step: `count` more tokens of sequence `sequence`.
struct StepPart {
  size_t sequence;
  int64_t count;
};
using Step = std::vector<StepPart>;

// One layer's cache for several sequences, its blocks handed out in random order and full of NaN
// (0xff) until they are written.
class Cache {
 public:
  Cache(const Shape& shape, const Operators& ops, std::span<const SequenceData> data, uint64_t seed)
      : tables_(data.size()) {
    std::vector<int32_t> ids;
    for (const SequenceData& s : data) {
      const int64_t blocks = (s.tokens() + kKvBlockTokens - 1) / kKvBlockTokens;
      for (int64_t i = 0; i < blocks; ++i) ids.push_back(static_cast<int32_t>(ids.size()));
    }
    for (size_t i = ids.size(); i > 1; --i) {
      std::swap(ids[i - 1], ids[random_bits(seed, 99, i) % i]);
    }
    layer_.layout = shape.layout;
    layer_.block_bytes = ops.block_bytes(shape.layout);
    memory_ = Buffer(layer_.block_bytes * ids.size() + 64);
    std::fill_n(memory_.data(), memory_.bytes(), std::byte{0xff});
    layer_.data = memory_.data();
    for (size_t i = 0, next = 0; i < data.size(); ++i) {
      const int64_t blocks = (data[i].tokens() + kKvBlockTokens - 1) / kKvBlockTokens;
      for (int64_t j = 0; j < blocks; ++j) tables_[i].push_back(ids[next++]);
    }
  }

  const KvLayer& layer() const { return layer_; }

  std::span<const int32_t> table(size_t sequence) const { return tables_[sequence]; }

 private:
  Buffer memory_;
  KvLayer layer_;
  std::vector<std::vector<int32_t>> tables_;
};

inline void copy_rows(const FloatMatrix& to,
                      int64_t to_row,
                      const FloatMatrix& from,
                      int64_t from_row,
                      int64_t count) {
  std::copy_n(from.row(from_row), count * from.columns(), to.row(to_row));
}

inline Tensor by_head(const FloatMatrix& m, int head_dim) {
  return Tensor(m.data(), DType::kF32, {m.rows(), m.columns() / head_dim, head_dim});
}

// Runs the steps; returns the attention of every token of every sequence.
inline std::vector<FloatMatrix> run_steps(const Shape& shape,
                                          const Operators& ops,
                                          std::span<const SequenceData> data,
                                          const Cache& cache,
                                          std::span<const Step> steps) {
  std::vector<FloatMatrix> outs;
  for (const SequenceData& s : data) outs.emplace_back(s.tokens(), shape.query_width());
  std::vector<int64_t> done(data.size(), 0);
  for (const Step& step : steps) {
    std::vector<SequenceSpan> spans;
    int64_t rows = 0;
    for (const StepPart& part : step) {
      const int64_t end = done[part.sequence] + part.count;
      const auto blocks = static_cast<size_t>((end + kKvBlockTokens - 1) / kKvBlockTokens);
      spans.push_back(
          {rows, part.count, done[part.sequence], cache.table(part.sequence).first(blocks)});
      rows += part.count;
    }
    const FloatMatrix q(rows, shape.query_width()), out(rows, shape.query_width());
    const FloatMatrix k(rows, shape.kv_width()), v(rows, shape.kv_width());
    for (size_t i = 0; i < step.size(); ++i) {
      const SequenceData& s = data[step[i].sequence];
      copy_rows(q, spans[i].row_begin, s.q, spans[i].position_begin, spans[i].row_count);
      copy_rows(k, spans[i].row_begin, s.k, spans[i].position_begin, spans[i].row_count);
      copy_rows(v, spans[i].row_begin, s.v, spans[i].position_begin, spans[i].row_count);
    }
    const int dims = shape.layout.head_dim;
    ops.store(cache.layer(), by_head(k, dims), by_head(v, dims), spans);
    ops.attend(by_head(out, dims), by_head(q, dims), cache.layer(), spans, shape.params());
    for (size_t i = 0; i < step.size(); ++i) {
      copy_rows(outs[step[i].sequence], spans[i].position_begin, out, spans[i].row_begin,
                spans[i].row_count);
      done[step[i].sequence] += spans[i].row_count;
    }
  }
  return outs;
}

// The whole of every sequence in one step.
inline std::vector<Step> one_step(std::span<const SequenceData> data) {
  Step step;
  for (size_t i = 0; i < data.size(); ++i) step.push_back({i, data[i].tokens()});
  return {step};
}

// Keys and values of one head of a sequence as the cache holds them: [tokens, head_dim] each.
struct HeadCache {
  FloatMatrix k, v;
};

inline HeadCache read_head(
    const Operators& ops, const Cache& cache, size_t sequence, int64_t tokens, int head) {
  const int dims = cache.layer().layout.head_dim;
  HeadCache read{FloatMatrix(tokens, dims), FloatMatrix(tokens, dims)};
  for (int64_t p = 0; p < tokens; ++p) {
    ops.load(cache.layer(), cache.table(sequence)[static_cast<size_t>(p / kKvBlockTokens)],
             static_cast<int>(p % kKvBlockTokens), head, read.k.row(p), read.v.row(p));
  }
  return read;
}

// Attention of one query head at `position` over rows [0, position] of k and v, in float64.
struct Exact {
  std::vector<double> out;            // [head_dim]
  std::vector<double> probabilities;  // [position + 1], 0 outside the window
};

inline Exact exact_attention(const Shape& shape,
                             const float* q,
                             const FloatMatrix& k,
                             const FloatMatrix& v,
                             int64_t position) {
  const int64_t first = shape.window > 0 ? std::max<int64_t>(0, position - shape.window + 1) : 0;
  const int64_t dims = shape.layout.head_dim;
  std::vector<double> p(static_cast<size_t>(position + 1), 0.0);
  double most = -std::numeric_limits<double>::infinity();
  for (int64_t t = first; t <= position; ++t) {
    double score = 0;
    for (int64_t i = 0; i < dims; ++i) score += static_cast<double>(q[i]) * k.row(t)[i];
    p[static_cast<size_t>(t)] = score * static_cast<double>(shape.params().scale);
    most = std::max(most, p[static_cast<size_t>(t)]);
  }
  double total = 0;
  for (int64_t t = first; t <= position; ++t) {
    double& x = p[static_cast<size_t>(t)];
    x = std::exp(x - most);
    total += x;
  }
  Exact exact{std::vector<double>(static_cast<size_t>(dims), 0.0), std::move(p)};
  for (int64_t t = first; t <= position; ++t) {
    double& x = exact.probabilities[static_cast<size_t>(t)];
    x /= total;
    for (int64_t i = 0; i < dims; ++i) exact.out[static_cast<size_t>(i)] += x * v.row(t)[i];
  }
  return exact;
}

}  // namespace quern::testing_attention
