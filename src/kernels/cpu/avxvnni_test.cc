// The kernels of AVX-VNNI as processors with AVX-512 VNNI can run them: the same source, with the
// two dot products in the other encoding.
#if defined(__x86_64__)
#include <bit>
#include <cstring>
#include <memory>
#include <utility>

#include <gtest/gtest.h>
#include <immintrin.h>

#include "kernels/backend.h"
#include "kernels/cases.h"
#include "kernels/cpu/dense_ops.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/linear_ops.h"
#include "kernels/cpu/packed.h"
#include "kernels/cpu/target.h"
#include "kernels/rounding.h"
#include "kernels/test_weights.h"

QUERN_TARGET_BEGIN(QUERN_TARGET_AVX512_VNNI)

namespace quern::cpu {
namespace {

inline __m256i dpbusd(__m256i sum, __m256i a, __m256i b) { return _mm256_dpbusd_epi32(sum, a, b); }

inline __m256i dpwssd(__m256i sum, __m256i a, __m256i b) { return _mm256_dpwssd_epi32(sum, a, b); }

namespace products {

#include "kernels/cpu/linear_avxvnni.inl"

}  // namespace products

namespace lanes {

#define QUERN_LANES_VNNI 1
#include "kernels/cpu/lanes_avx2.inl"

// sums[i] += the four products of lane i.
void add_dot_bytes(int32_t* sums, const uint8_t* u, const int8_t* s) {
  const I sum = dot_bytes(load_i(sums), load_i(u), load_i(s));
  std::memcpy(sums, &sum, sizeof sum);
}

}  // namespace lanes
}  // namespace
}  // namespace quern::cpu

QUERN_TARGET_END

namespace quern::cpu {
namespace {

constexpr uint64_t kSeed = 91;

class AvxVnniCases : public testing::TestWithParam<LinearCase> {
 protected:
  void SetUp() override {
    if (!isa_supported(Isa::kAvx512Vnni)) GTEST_SKIP();
  }
};

TEST_P(AvxVnniCases, EqualTheReferenceBitForBit) {
  const LinearCase& shape = GetParam();
  const auto ref = std::move(make_backend({.name = "ref", .threads = 2})).value();
  const LinearOps ops = products::kBaseOps;
  ThreadPool pool(2);
  HugePageArena arena;
  for (const int bits : {8, 7}) {
    if (bits != 8 && shape.format != WeightFormat::kInt8) continue;
    const Weight weight = random_weight(shape, kSeed, bits);
    const Weight* part = &weight;
    const FloatMatrix x = random_matrix(kTokenCounts.back(), shape.columns, kSeed + 6);
    FloatMatrix expected(x.rows(), shape.rows);
    ref->linear(expected.tensor(), x.tensor(), *ref->pack({&part, 1}, {}, Precision::kFast));
    const auto packed = pack_weight(pool, {&part, 1}, {}, Precision::kFast, arena);
    LinearScratch scratch;
    for (const int64_t tokens : kTokenCounts) {
      const FloatMatrix rows = some_rows(x, 0, tokens);
      FloatMatrix got(tokens, shape.rows);
      linear(pool, {.ops = &ops, .dense = &table_for(kDenseOps, Isa::kAvx2)}, scratch, got.tensor(),
             rows.tensor(), *packed);
      ASSERT_EQ(first_difference(got, expected), -1)
          << shape.name << " tokens " << tokens << " bits " << bits;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, AvxVnniCases, testing::ValuesIn(kSmallCases));

TEST(AvxVnni, ProductsOfBytesForAttentionAreExact) {
  if (!isa_supported(Isa::kAvx512Vnni)) GTEST_SKIP();
  for (uint64_t round = 0; round < 100; ++round) {
    alignas(64) int32_t sums[16];
    alignas(64) uint8_t u[64];
    alignas(64) int8_t s[64];
    int32_t expected[16];
    for (uint64_t i = 0; i < 64; ++i) {  // the first round has the extremes alone
      u[i] = round == 0 ? 255 : static_cast<uint8_t>(random_bits(kSeed, 1, round * 64 + i));
      s[i] = round == 0 ? -128 : static_cast<int8_t>(random_bits(kSeed, 2, round * 64 + i));
    }
    for (int lane = 0; lane < 16; ++lane) {
      sums[lane] = expected[lane] = lane * 1000 - 7000;
      for (int i = 4 * lane; i < 4 * lane + 4; ++i) expected[lane] += u[i] * s[i];
    }
    lanes::add_dot_bytes(sums, u, s);
    for (int lane = 0; lane < 16; ++lane) EXPECT_EQ(sums[lane], expected[lane]) << round;
  }
}

}  // namespace
}  // namespace quern::cpu
#endif
