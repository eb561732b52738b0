#include "kernels/dense.h"

#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "base/float16.h"
#include "kernels/cpu/isa.h"
#include "kernels/test_weights.h"

namespace quern {
namespace {

struct Shape {
  int64_t rows, columns, depth;
};

// Edges of tiles (6 rows, 16 and 64 columns), of slices (512) and of row blocks (1536).
const Shape kShapes[] = {{1, 1, 1},     {5, 17, 3},     {6, 64, 16},  {7, 65, 33},
                         {13, 70, 513}, {100, 129, 40}, {97, 3, 600}, {1540, 20, 5}};

float element(const FloatMatrix& x, Transpose transpose, int64_t i, int64_t j) {
  return transpose == Transpose::kYes ? x.row(j)[i] : x.row(i)[j];
}

FloatMatrix operand(Transpose transpose, int64_t rows, int64_t columns, uint64_t seed) {
  if (transpose == Transpose::kYes) return random_matrix(columns, rows, seed);
  return random_matrix(rows, columns, seed);
}

// depth + 2 roundings of relative size 2^-24 on a sum of |alpha| |a| |b| and |beta c|.
void expect_product(const FloatMatrix& got,
                    const FloatMatrix& before,
                    const FloatMatrix& a,
                    const FloatMatrix& b,
                    const GemmParams& params) {
  const int64_t depth = params.a == Transpose::kYes ? a.rows() : a.columns();
  for (int64_t i = 0; i < got.rows(); ++i) {
    for (int64_t j = 0; j < got.columns(); ++j) {
      double sum = 0;
      double magnitude = 0;
      for (int64_t k = 0; k < depth; ++k) {
        const double term =
            static_cast<double>(element(a, params.a, i, k)) * element(b, params.b, k, j);
        sum += term;
        magnitude += std::fabs(term);
      }
      const double old = params.beta == 0 ? 0 : params.beta * static_cast<double>(before.row(i)[j]);
      const double want = params.alpha * sum + old;
      const double bound = (std::fabs(params.alpha) * magnitude + std::fabs(old)) *
                           static_cast<double>(depth + 2) * 0x1p-24;
      ASSERT_NEAR(got.row(i)[j], want, bound) << i << " " << j;
    }
  }
}

TEST(Gemm, MultipliesEveryShapeAndTransposition) {
  ThreadPool pool(2);
  for (const Shape& shape : kShapes) {
    for (const Transpose ta : {Transpose::kNo, Transpose::kYes}) {
      for (const Transpose tb : {Transpose::kNo, Transpose::kYes}) {
        const FloatMatrix a = operand(ta, shape.rows, shape.depth, 1);
        const FloatMatrix b = operand(tb, shape.depth, shape.columns, 2);
        const FloatMatrix before = random_matrix(shape.rows, shape.columns, 3);
        FloatMatrix c = random_matrix(shape.rows, shape.columns, 3);
        const GemmParams params{.a = ta, .b = tb, .alpha = -0.5f, .beta = 0.25f};
        gemm_f32(pool, c.tensor(), a.tensor(), b.tensor(), params);
        expect_product(c, before, a, b, params);
      }
    }
  }
}

FloatMatrix rounded_to_bf16(const FloatMatrix& x) {
  FloatMatrix rounded(x.rows(), x.columns());
  for (int64_t i = 0; i < x.rows() * x.columns(); ++i)
    rounded.data()[i] = bf16_to_f32(f32_to_bf16(x.data()[i]));
  return rounded;
}

// Where the machine multiplies pairs; elsewhere the operands stay as they are.
TEST(Gemm, MultipliesOperandsRoundedToBf16) {
  if (!cpu::isa_supported(cpu::Isa::kAvx512Bf16)) GTEST_SKIP();
  ThreadPool pool(2);
  const Shape deep[] = {{7, 65, 1024}, {7, 65, 1025}, {9, 30, 2050}};
  std::vector<Shape> shapes(std::begin(kShapes), std::end(kShapes));
  shapes.insert(shapes.end(), std::begin(deep), std::end(deep));
  for (const Shape& shape : shapes) {
    for (const Transpose ta : {Transpose::kNo, Transpose::kYes}) {
      for (const Transpose tb : {Transpose::kNo, Transpose::kYes}) {
        const FloatMatrix a = operand(ta, shape.rows, shape.depth, 1);
        const FloatMatrix b = operand(tb, shape.depth, shape.columns, 2);
        const FloatMatrix before = random_matrix(shape.rows, shape.columns, 3);
        FloatMatrix c = random_matrix(shape.rows, shape.columns, 3);
        const GemmParams params{
            .a = ta, .b = tb, .alpha = -0.5f, .beta = 0.25f, .operands = Operands::kBF16};
        gemm_f32(pool, c.tensor(), a.tensor(), b.tensor(), params);
        expect_product(c, before, rounded_to_bf16(a), rounded_to_bf16(b), params);
      }
    }
  }
}

TEST(Gemm, AnUpperFactorHasNothingBelowItsDiagonal) {
  ThreadPool pool(2);
  for (const int64_t width : {1, 16, 65, 130, 700, 1100}) {
    for (const Transpose tb : {Transpose::kNo, Transpose::kYes}) {
      for (const Operands operands : {Operands::kFloat32, Operands::kBF16}) {
        const FloatMatrix a = rounded_to_bf16(random_matrix(13, width, 1));
        FloatMatrix b = rounded_to_bf16(random_matrix(width, width, 2));
        const GemmParams params{
            .b = tb, .beta = 0.5f, .operands = operands, .factor = Factor::kUpper};
        const FloatMatrix before = random_matrix(13, width, 3);
        FloatMatrix c = random_matrix(13, width, 3);
        gemm_f32(pool, c.tensor(), a.tensor(), b.tensor(), params);
        for (int64_t i = 0; i < width; ++i) {
          for (int64_t j = 0; j < i; ++j) (tb == Transpose::kYes ? b.row(j)[i] : b.row(i)[j]) = 0;
        }
        expect_product(c, before, a, b, params);
      }
    }
  }
}

TEST(Gemm, OverwritesWhateverWasThereWhenBetaIsZero) {
  ThreadPool pool(1);
  FloatMatrix c(3, 4);
  for (int64_t i = 0; i < 12; ++i) c.data()[i] = std::numeric_limits<float>::quiet_NaN();
  const FloatMatrix a = random_matrix(3, 5, 1);
  const FloatMatrix b = random_matrix(5, 4, 2);
  gemm_f32(pool, c.tensor(), a.tensor(), b.tensor(), {});
  expect_product(c, c, a, b, {});
}

TEST(Gemm, ScalesAloneWhenThereIsNothingToSum) {
  ThreadPool pool(1);
  FloatMatrix c = random_matrix(2, 3, 1);
  const FloatMatrix before = random_matrix(2, 3, 1);
  const FloatMatrix a(2, 0);
  const FloatMatrix b(0, 3);
  gemm_f32(pool, c.tensor(), a.tensor(), b.tensor(), {.beta = 2.0f});
  for (int64_t i = 0; i < 6; ++i) EXPECT_EQ(c.data()[i], 2 * before.data()[i]);
}

TEST(Gemm, RespectsStridedViews) {
  ThreadPool pool(2);
  const FloatMatrix a = random_matrix(10, 12, 1);
  const FloatMatrix b = random_matrix(7, 30, 2);
  FloatMatrix c(10, 40);
  for (int64_t i = 0; i < 400; ++i) c.data()[i] = 9;
  gemm_f32(pool, c.tensor().slice_columns(8, 20), a.tensor().slice_columns(2, 7),
           b.tensor().slice_columns(5, 20), {});
  for (int64_t i = 0; i < 10; ++i) {
    EXPECT_EQ(c.row(i)[7], 9);
    EXPECT_EQ(c.row(i)[28], 9);
    for (int64_t j = 0; j < 20; ++j) {
      float want = 0;
      for (int64_t k = 0; k < 7; ++k) want = std::fma(b.row(k)[5 + j], a.row(i)[2 + k], want);
      ASSERT_EQ(c.row(i)[8 + j], want);
    }
  }
}

TEST(Gemm, DoesNotDependOnTheNumberOfThreads) {
  const FloatMatrix a = random_matrix(150, 1100, 1);
  const FloatMatrix b = random_matrix(1100, 200, 2);
  FloatMatrix expected(150, 200);
  ThreadPool one(1);
  gemm_f32(one, expected.tensor(), a.tensor(), b.tensor(), {});
  for (const int threads : {2, 3}) {
    ThreadPool pool(threads);
    FloatMatrix c(150, 200);
    gemm_f32(pool, c.tensor(), a.tensor(), b.tensor(), {});
    EXPECT_EQ(std::memcmp(c.data(), expected.data(), 150 * 200 * sizeof(float)), 0);
  }
}

TEST(Gemm, UpperTriangleMirroredIsTheWholeSymmetricProduct) {
  ThreadPool pool(2);
  for (const int64_t width : {1, 16, 65, 200, 1601}) {
    const FloatMatrix x = random_matrix(33, width, 1);
    const GemmParams params{.a = Transpose::kYes, .beta = 1.0f};
    GemmParams upper = params;
    upper.triangle = Triangle::kUpper;
    FloatMatrix start(width, width);
    gemm_f32(pool, start.tensor(), x.tensor(), x.tensor(), params);
    FloatMatrix gram(width, width);
    std::memcpy(gram.data(), start.data(), static_cast<size_t>(width * width) * sizeof(float));
    gemm_f32(pool, gram.tensor(), x.tensor(), x.tensor(), upper);
    if (width > 600) {
      EXPECT_EQ(gram.row(width - 1)[0], start.row(width - 1)[0]);
    }
    mirror_upper(pool, gram.tensor());
    if (width <= 200) expect_product(gram, start, x, x, params);
    for (int64_t i = 0; i < width; ++i) {
      for (int64_t j = 0; j < i; ++j) ASSERT_EQ(gram.row(i)[j], gram.row(j)[i]);
    }
  }
}

}  // namespace
}  // namespace quern
