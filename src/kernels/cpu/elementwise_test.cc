#include "kernels/cpu/elementwise.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/ref/attention_testing.h"
#include "kernels/ref/elementwise.h"

namespace quern::cpu {
namespace {

using testing_attention::by_head;
using testing_attention::gaussian_matrix;

std::vector<Isa> isas() {
  std::vector<Isa> all;
  for (int i = 0; i < kIsaCount; ++i) {
    if (isa_supported(static_cast<Isa>(i))) all.push_back(static_cast<Isa>(i));
  }
  return all;
}

constexpr int64_t kWidths[] = {1, 8, 15, 16, 17, 63, 64, 65, 576, 1536, 8960};

FloatMatrix copy(const FloatMatrix& m) {
  FloatMatrix c(m.rows(), m.columns());
  std::copy_n(m.data(), m.rows() * m.columns(), c.data());
  return c;
}

std::span<const float> row_span(const FloatMatrix& m) {
  return {m.data(), static_cast<size_t>(m.columns())};
}

bool same_bits(const FloatMatrix& a, const FloatMatrix& b) {
  return std::memcmp(a.data(), b.data(), static_cast<size_t>(a.rows() * a.columns()) * 4) == 0;
}

// |a - b| <= relative * |b| everywhere.
void expect_close(const FloatMatrix& a, const FloatMatrix& b, float relative, Isa isa) {
  for (int64_t i = 0; i < a.rows() * a.columns(); ++i) {
    ASSERT_LE(std::fabs(a.data()[i] - b.data()[i]), relative * std::fabs(b.data()[i]))
        << isa_name(isa) << " width " << a.columns() << " element " << i << ": " << a.data()[i]
        << " for " << b.data()[i];
  }
}

TEST(CpuElementwise, NormsAgreeWithTheReference) {
  ThreadPool pool(2);
  for (const Isa isa : isas()) {
    for (const int64_t width : kWidths) {
      const FloatMatrix x = gaussian_matrix(5, width, 1, 3.0f), y = gaussian_matrix(5, width, 2, 1);
      const FloatMatrix weight = gaussian_matrix(1, width, 3, 1.0f);
      const FloatMatrix out(5, width), expected(5, width);
      rms_norm(pool, isa, out.tensor(), x.tensor(), row_span(weight), 1e-5f);
      ref::rms_norm(pool, expected.tensor(), x.tensor(), row_span(weight), 1e-5f);
      // 64 partial sums of width / 64 squares, one root, one division, two products.
      const float tolerance = 0x1p-24f * (8 + static_cast<float>(width) / 64);
      expect_close(out, expected, tolerance, isa);
      const FloatMatrix sum = copy(x), expected_sum = copy(x);
      add_rms_norm(pool, isa, out.tensor(), sum.tensor(), y.tensor(), row_span(weight), 1e-5f);
      ref::add_rms_norm(pool, expected.tensor(), expected_sum.tensor(), y.tensor(),
                        row_span(weight), 1e-5f);
      EXPECT_TRUE(same_bits(sum, expected_sum));
      expect_close(out, expected, tolerance, isa);
      add(pool, isa, sum.tensor(), y.tensor());
      ref::add(pool, expected_sum.tensor(), y.tensor());
      EXPECT_TRUE(same_bits(sum, expected_sum));
    }
  }
}

TEST(CpuElementwise, NormOfHeadsInPlaceTreatsEachHeadAlone) {
  ThreadPool pool(1);
  for (const Isa isa : isas()) {
    const FloatMatrix x = gaussian_matrix(3, 4 * 80, 4, 1.0f);
    const FloatMatrix weight = gaussian_matrix(1, 80, 5, 1.0f);
    const FloatMatrix expected = copy(x);
    rms_norm(pool, isa, by_head(x, 80), by_head(x, 80), row_span(weight), 1e-6f);
    ref::rms_norm(pool, by_head(expected, 80), by_head(expected, 80), row_span(weight), 1e-6f);
    expect_close(x, expected, 1e-6f, isa);
  }
}

TEST(CpuElementwise, SiluMultiplyAgreesWithTheReferenceOverTheWholeRange) {
  ThreadPool pool(2);
  for (const Isa isa : isas()) {
    const int64_t width = 4099;
    const FloatMatrix x(1, 2 * width), out(1, width), expected(1, width);
    for (int64_t i = 0; i < width; ++i) {
      x.data()[i] = -80.0f + 0.04f * static_cast<float>(i);
      x.data()[width + i] = 1.0f + 0.001f * static_cast<float>(i);
    }
    silu_multiply(pool, gate_kernel_for(isa), out.tensor(), x.tensor());
    ref::silu_multiply(pool, expected.tensor(), x.tensor());
    // exp: 2 ulp; a sum, a division, a product: half an ulp each.
    expect_close(out, expected, 5 * 0x1p-24f, isa);
  }
}

TEST(CpuElementwise, SiluOfExtremesIsZeroOrTheNumberItself) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  ThreadPool pool(1);
  for (const Isa isa : isas()) {
    std::vector<float> x = {-1e30f, -200, 200, 1e30f, kInf, std::nanf(""), 1, 1, 1, 1, 1, 1};
    std::vector<float> out(6);
    silu_multiply(pool, gate_kernel_for(isa), Tensor(out.data(), DType::kF32, {1, 6}),
                  Tensor(x.data(), DType::kF32, {1, 12}));
    EXPECT_NEAR(out[0], 0, 1e-7);
    EXPECT_NEAR(out[1], 0, 1e-7);
    EXPECT_EQ(out[2], 200);
    EXPECT_EQ(out[3], 1e30f);
    EXPECT_EQ(out[4], kInf);
    EXPECT_TRUE(std::isnan(out[5]));
  }
}

TEST(CpuElementwise, RopeAgreesWithTheReferenceUpToAMillionPositions) {
  ThreadPool pool(2);
  for (const Isa isa : isas()) {
    for (const int64_t half : {4, 8, 20, 32, 64}) {
      RopeTables tables;
      RopeParams params;
      params.attention_factor = 1.25f;
      for (int64_t i = 0; i < half; ++i) {
        params.inverse_frequencies.push_back(
            std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(half)));
      }
      const int32_t positions[] = {0, 1, 4095, 131071, 1048575};
      for (const int head_dim : {128, 130}) {  // whole and partial rotation
        const FloatMatrix x = gaussian_matrix(5, 3 * head_dim, 6, 1.0f);
        const FloatMatrix expected = copy(x);
        rope(pool, isa, tables, by_head(x, head_dim), positions, params);
        ref::rope(pool, by_head(expected, head_dim), positions, params);
        for (int64_t i = 0; i < 5 * 3 * head_dim; ++i) {
          ASSERT_NEAR(x.data()[i], expected.data()[i], 1e-6) << isa_name(isa) << " half " << half;
        }
      }
    }
  }
}

TEST(CpuElementwise, RopeTablesFollowPositionsAndFrequencies) {
  ThreadPool pool(1);
  RopeTables tables;
  RopeParams a{{1.0, 0.5}, 1.0f}, b{{0.25}, 2.0f};
  const int32_t first[] = {1, 2}, second[] = {3};
  for (int round = 0; round < 2; ++round) {
    EXPECT_FLOAT_EQ(tables.rows(pool, first, a)[1], std::cos(0.5f));
    EXPECT_FLOAT_EQ(tables.rows(pool, first, a)[6], std::sin(2.0f));
    EXPECT_FLOAT_EQ(tables.rows(pool, first, b)[0], 2 * std::cos(0.25f));
    EXPECT_FLOAT_EQ(tables.rows(pool, second, b)[1], 2 * std::sin(0.75f));
    EXPECT_EQ(tables.rows(pool, second, b).size(), 2u);
  }
  a.attention_factor = 3.0f;
  EXPECT_FLOAT_EQ(tables.rows(pool, first, a)[0], 3 * std::cos(1.0f));
  const float* kept = tables.rows(pool, first, a).data();
  EXPECT_EQ(tables.rows(pool, first, a).data(), kept);
}

// A row's numbers must not depend on the rows around it, on threads or on the instruction set.
TEST(CpuElementwise, GivesTheSameBitsInAnyBatchOnAnyThreadsAndInstructionSet) {
  ThreadPool alone(1);
  for (const int64_t width : kWidths) {
    const FloatMatrix x = gaussian_matrix(64, 2 * width, 7, 2.0f);
    const FloatMatrix weight = gaussian_matrix(1, 2 * width, 8, 1.0f);
    const FloatMatrix norms(64, 2 * width), gated(64, width);
    for (int64_t i = 0; i < 64; ++i) {
      rms_norm(alone, best_isa(), norms.tensor().slice_rows(i, 1), x.tensor().slice_rows(i, 1),
               row_span(weight), 1e-5f);
      silu_multiply(alone, gate_kernel_for(best_isa()), gated.tensor().slice_rows(i, 1),
                    x.tensor().slice_rows(i, 1));
    }
    for (const Isa isa : isas()) {
      for (const int threads : {1, 2, 3}) {
        ThreadPool pool(threads);
        const FloatMatrix norms_again(64, 2 * width), gated_again(64, width);
        rms_norm(pool, isa, norms_again.tensor(), x.tensor(), row_span(weight), 1e-5f);
        silu_multiply(pool, gate_kernel_for(isa), gated_again.tensor(), x.tensor());
        EXPECT_TRUE(same_bits(norms, norms_again)) << isa_name(isa) << " width " << width;
        EXPECT_TRUE(same_bits(gated, gated_again)) << isa_name(isa) << " width " << width;
      }
    }
  }
}

TEST(CpuElementwise, RowsMayBeStrided) {
  ThreadPool pool(1);
  for (const Isa isa : isas()) {
    const FloatMatrix x = gaussian_matrix(4, 100, 9, 1.0f);
    const FloatMatrix weight = gaussian_matrix(1, 40, 10, 1.0f);
    const FloatMatrix out(4, 40), expected(4, 40);
    const Tensor columns = x.tensor().slice_columns(30, 40);
    rms_norm(pool, isa, out.tensor(), columns, row_span(weight), 1e-5f);
    ref::rms_norm(pool, expected.tensor(), columns, row_span(weight), 1e-5f);
    expect_close(out, expected, 1e-6f, isa);
  }
}

}  // namespace
}  // namespace quern::cpu
