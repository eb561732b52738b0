#include "kernels/ref/attention.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "kernels/kv_format.h"
#include "kernels/ref/attention_testing.h"

namespace quern::ref {
namespace {

using namespace testing_attention;

Operators operators(ThreadPool& pool) {
  return {kv_block_bytes,
          [&](const KvLayer& layer, Tensor k, Tensor v, std::span<const SequenceSpan> s) {
            store_kv(pool, layer, k, v, s);
          },
          [&](Tensor out, Tensor q, const KvLayer& layer, std::span<const SequenceSpan> s,
              const AttentionParams& params) { attention(pool, out, q, layer, s, params); },
          load_kv};
}

std::vector<Shape> shapes() {
  std::vector<Shape> all;
  for (const KvDType dtype : {KvDType::kInt8, KvDType::kBF16, KvDType::kF32}) {
    all.push_back({{dtype, 1, 8}, 1, 0});
    all.push_back({{dtype, 3, 64}, 9, 0});
    all.push_back({{dtype, 2, 80}, 4, 40});
    all.push_back({{dtype, 1, 256}, 2, 0});
  }
  return all;
}

TEST(RefAttention, AgreesWithFloat64OverWhatTheCacheHolds) {
  ThreadPool pool(2);
  const Operators ops = operators(pool);
  for (const Shape& shape : shapes()) {
    std::vector<SequenceData> data;
    data.push_back(random_sequence(shape, 101, 1));
    data.push_back(random_sequence(shape, 7, 2));
    const Cache cache(shape, ops, data, 3);
    const auto outs = run_steps(shape, ops, data, cache, one_step(data));
    const int dims = shape.layout.head_dim;
    for (size_t s = 0; s < data.size(); ++s) {
      for (int head = 0; head < shape.heads; ++head) {
        const int kv_head = head / (shape.heads / shape.layout.kv_heads);
        const HeadCache held = read_head(ops, cache, s, data[s].tokens(), kv_head);
        for (int64_t p = 0; p < data[s].tokens(); ++p) {
          const float* q = data[s].q.row(p) + head * dims;
          const Exact exact = exact_attention(shape, q, held.k, held.v, p);
          for (int i = 0; i < dims; ++i) {
            // |v| < 6; dims + 101 roundings of 6e-8 in scores of a few units and in the sums.
            ASSERT_NEAR(outs[s].row(p)[head * dims + i], exact.out[static_cast<size_t>(i)], 5e-5)
                << "head_dim " << dims << " position " << p << " head " << head;
          }
        }
      }
    }
  }
}

TEST(RefAttention, Int8CacheHoldsNumbersWithinHalfAStep) {
  ThreadPool pool(1);
  const Operators ops = operators(pool);
  const Shape shape{{KvDType::kInt8, 2, 80}, 2, 0};
  std::vector<SequenceData> data;
  data.push_back(random_sequence(shape, 40, 5));
  const Cache cache(shape, ops, data, 6);
  run_steps(shape, ops, data, cache, one_step(data));
  for (int head = 0; head < 2; ++head) {
    const HeadCache held = read_head(ops, cache, 0, 40, head);
    for (int64_t p = 0; p < 40; ++p) {
      const float* k = data[0].k.row(p) + head * 80;
      const float* v = data[0].v.row(p) + head * 80;
      float v_most = 0;
      for (int i = 0; i < 80; ++i) v_most = std::max(v_most, std::fabs(v[i]));
      for (int i = 0; i < 80; ++i) {
        float k_most = 0;
        const int begin = i / kKeyGroup * kKeyGroup;
        for (int j = begin; j < std::min(80, begin + kKeyGroup); ++j) {
          k_most = std::max(k_most, std::fabs(k[j]));
        }
        EXPECT_LE(std::fabs(held.k.row(p)[i] - k[i]), k_most / 127 * 0.50001f);
        EXPECT_LE(std::fabs(held.v.row(p)[i] - v[i]), v_most / 127 * 0.50001f);
      }
    }
  }
}

TEST(RefAttention, ShowsWhatIsNotANumber) {
  ThreadPool pool(1);
  const Operators ops = operators(pool);
  for (const KvDType dtype : {KvDType::kInt8, KvDType::kBF16, KvDType::kF32}) {
    const Shape shape{{dtype, 1, 16}, 1, 0};
    std::vector<SequenceData> data;
    data.push_back(random_sequence(shape, 40, 7));
    data[0].v.row(35)[3] = std::numeric_limits<float>::quiet_NaN();
    const Cache cache(shape, ops, data, 8);
    const auto outs = run_steps(shape, ops, data, cache, one_step(data));
    EXPECT_TRUE(std::isfinite(outs[0].row(34)[3]));
    EXPECT_TRUE(std::isnan(outs[0].row(35)[3]));
    EXPECT_TRUE(std::isnan(outs[0].row(39)[3]));
  }
}

}  // namespace
}  // namespace quern::ref
