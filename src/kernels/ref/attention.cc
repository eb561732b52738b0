#include "kernels/ref/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/check.h"
#include "base/float16.h"
#include "kernels/kv_format.h"

namespace quern::ref {
namespace {

size_t element_bytes(KvDType dtype) {
  switch (dtype) {
    case KvDType::kInt8:
      return 1;
    case KvDType::kBF16:
      return 2;
    case KvDType::kF32:
      return 4;
  }
  return 0;
}

// Where one head of one block keeps its numbers: keys, values, then for int8 the scales of keys
// [kKvBlockTokens, groups] and of values [kKvBlockTokens].
struct HeadBlock {
  std::byte* keys;
  std::byte* values;
  float* key_scales;
  float* value_scales;
};

size_t head_bytes(const KvLayout& layout) {
  const size_t numbers = size_t{2} * static_cast<size_t>(kKvBlockTokens * layout.head_dim);
  const size_t scales = layout.dtype == KvDType::kInt8
                            ? static_cast<size_t>(kKvBlockTokens * (key_groups(layout) + 1))
                            : 0;
  return numbers * element_bytes(layout.dtype) + scales * sizeof(float);
}

HeadBlock head_block(const KvLayer& layer, int32_t block, int head) {
  const KvLayout& layout = layer.layout;
  const size_t matrix =
      static_cast<size_t>(kKvBlockTokens * layout.head_dim) * element_bytes(layout.dtype);
  std::byte* base = layer.data + static_cast<size_t>(block) * layer.block_bytes +
                    static_cast<size_t>(head) * head_bytes(layout);
  auto* scales = reinterpret_cast<float*>(base + 2 * matrix);
  return {base, base + matrix, scales, scales + kKvBlockTokens * key_groups(layout)};
}

// max|x|, or NaN when there is a NaN.
float largest_magnitude(const float* x, int count) {
  float largest = 0;
  for (int i = 0; i < count; ++i) {
    const float magnitude = std::fabs(x[i]);
    if (std::isnan(magnitude)) return magnitude;
    largest = std::max(largest, magnitude);
  }
  return largest;
}

// Quantises one group; returns its scale.
float store_int8(int8_t* out, const float* x, int count) {
  const float largest = largest_magnitude(x, count);
  const bool usable = largest >= kSmallestMagnitude && std::isfinite(largest);
  const float inverse = usable ? 127.0f / largest : 0.0f;
  for (int i = 0; i < count; ++i) {
    out[i] = static_cast<int8_t>(usable ? std::nearbyint(x[i] * inverse) : 0.0f);
  }
  return largest < kSmallestMagnitude ? 0.0f : largest / 127.0f;
}

void store_head(
    const HeadBlock& to, const KvLayout& layout, int slot, const float* k, const float* v) {
  const int dims = layout.head_dim;
  const int at = slot * dims;
  for (int i = 0; i < dims; ++i) {
    if (layout.dtype == KvDType::kF32) {
      reinterpret_cast<float*>(to.keys)[at + i] = k[i];
      reinterpret_cast<float*>(to.values)[at + i] = v[i];
    } else if (layout.dtype == KvDType::kBF16) {
      reinterpret_cast<uint16_t*>(to.keys)[at + i] = f32_to_bf16(k[i]);
      reinterpret_cast<uint16_t*>(to.values)[at + i] = f32_to_bf16(v[i]);
    }
  }
  if (layout.dtype != KvDType::kInt8) return;
  for (int begin = 0; begin < dims; begin += kKeyGroup) {
    to.key_scales[slot * key_groups(layout) + begin / kKeyGroup] =
        store_int8(reinterpret_cast<int8_t*>(to.keys) + at + begin, k + begin,
                   std::min(kKeyGroup, dims - begin));
  }
  to.value_scales[slot] = store_int8(reinterpret_cast<int8_t*>(to.values) + at, v, dims);
}

// One query head over the visible positions [first, last] of its sequence.
struct Query {
  const float* q;
  float* out;
  int64_t first;
  int64_t last;
  int kv_head;
};

void attend(const KvLayer& layer,
            std::span<const int32_t> block_table,
            const Query& query,
            const AttentionParams& params) {
  const auto dims = static_cast<size_t>(layer.layout.head_dim);
  std::vector<float> key(dims), value(dims * kKvBlockTokens), sum(dims);
  float largest = -std::numeric_limits<float>::infinity();
  float total = 0;
  for (int64_t block = query.first / kKvBlockTokens; block <= query.last / kKvBlockTokens;
       ++block) {
    const int64_t begin = std::max(query.first, block * kKvBlockTokens);
    const int64_t end = std::min(query.last + 1, (block + 1) * kKvBlockTokens);
    float scores[kKvBlockTokens];
    float block_largest = largest;
    for (int64_t p = begin; p < end; ++p) {
      const auto slot = static_cast<int>(p % kKvBlockTokens);
      load_kv(layer, block_table[static_cast<size_t>(block)], slot, query.kv_head, key.data(),
              value.data() + static_cast<size_t>(p - begin) * dims);
      float score = 0;
      for (size_t i = 0; i < dims; ++i) score += query.q[i] * key[i];
      scores[p - begin] = score * params.scale;
      block_largest = std::max(scores[p - begin], block_largest);
    }
    const float rescale = std::exp(largest - block_largest);
    largest = block_largest;
    total *= rescale;
    for (float& x : sum) x *= rescale;
    for (int64_t p = begin; p < end; ++p) {
      const float weight = std::exp(scores[p - begin] - largest);
      total += weight;
      for (size_t i = 0; i < dims; ++i) {
        sum[i] += weight * value[static_cast<size_t>(p - begin) * dims + i];
      }
    }
  }
  for (size_t i = 0; i < dims; ++i) query.out[i] = sum[i] / total;
}

}  // namespace

size_t kv_block_bytes(const KvLayout& layout) {
  return static_cast<size_t>(layout.kv_heads) * head_bytes(layout);
}

void store_kv(ThreadPool& pool,
              const KvLayer& layer,
              Tensor k,
              Tensor v,
              std::span<const SequenceSpan> sequences) {
  const KvLayout& layout = layer.layout;
  QUERN_CHECK(k.row_elements() == layout.kv_heads * layout.head_dim);
  QUERN_CHECK(v.row_elements() == k.row_elements());
  for (const SequenceSpan& sequence : sequences) {
    pool.for_each_chunk(sequence.row_count, 1, [&](int64_t begin, int64_t, int) {
      const int64_t position = sequence.position_begin + begin;
      const int32_t block = sequence.block_table[static_cast<size_t>(position / kKvBlockTokens)];
      for (int head = 0; head < layout.kv_heads; ++head) {
        store_head(head_block(layer, block, head), layout,
                   static_cast<int>(position % kKvBlockTokens),
                   k.f32_row(sequence.row_begin + begin) + head * layout.head_dim,
                   v.f32_row(sequence.row_begin + begin) + head * layout.head_dim);
      }
    });
  }
}

void load_kv(const KvLayer& layer, int32_t block, int slot, int head, float* key, float* value) {
  const KvLayout& layout = layer.layout;
  const HeadBlock from = head_block(layer, block, head);
  const int dims = layout.head_dim;
  for (int i = 0, at = slot * dims; i < dims; ++i, ++at) {
    switch (layout.dtype) {
      case KvDType::kF32:
        key[i] = reinterpret_cast<const float*>(from.keys)[at];
        value[i] = reinterpret_cast<const float*>(from.values)[at];
        break;
      case KvDType::kBF16:
        key[i] = bf16_to_f32(reinterpret_cast<const uint16_t*>(from.keys)[at]);
        value[i] = bf16_to_f32(reinterpret_cast<const uint16_t*>(from.values)[at]);
        break;
      case KvDType::kInt8:
        key[i] = static_cast<float>(reinterpret_cast<const int8_t*>(from.keys)[at]) *
                 from.key_scales[slot * key_groups(layout) + i / kKeyGroup];
        value[i] = static_cast<float>(reinterpret_cast<const int8_t*>(from.values)[at]) *
                   from.value_scales[slot];
        break;
    }
  }
}

void attention(ThreadPool& pool,
               Tensor out,
               Tensor q,
               const KvLayer& layer,
               std::span<const SequenceSpan> sequences,
               const AttentionParams& params) {
  const KvLayout& layout = layer.layout;
  QUERN_CHECK(params.heads % layout.kv_heads == 0);
  QUERN_CHECK(q.row_elements() == params.heads * layout.head_dim);
  QUERN_CHECK(out.row_elements() == q.row_elements());
  const int group = params.heads / layout.kv_heads;
  for (const SequenceSpan& sequence : sequences) {
    pool.for_each_chunk(sequence.row_count, 1, [&](int64_t begin, int64_t, int) {
      const int64_t row = sequence.row_begin + begin;
      const int64_t last = sequence.position_begin + begin;
      const int64_t first = params.window > 0 ? std::max<int64_t>(0, last - params.window + 1) : 0;
      for (int head = 0; head < params.heads; ++head) {
        const int64_t at = int64_t{head} * layout.head_dim;
        attend(layer, sequence.block_table,
               {q.f32_row(row) + at, out.f32_row(row) + at, first, last, head / group}, params);
      }
    });
  }
}

}  // namespace quern::ref
