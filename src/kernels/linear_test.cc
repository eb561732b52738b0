#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/backend.h"
#include "kernels/cases.h"
#include "kernels/test_weights.h"

namespace quern {
namespace {

constexpr uint64_t kSeed = 20;

std::unique_ptr<Backend> make(std::string_view name, int threads, std::string_view isa = "") {
  auto made = make_backend({.name = name, .threads = threads, .isa = isa});
  EXPECT_TRUE(made.has_value()) << made.error().message;
  return std::move(made).value();
}

std::vector<std::string_view> supported_isas() {
  std::vector<std::string_view> isas;
  for (const std::string_view isa : cpu_isas()) {
    if (cpu_supports(isa)) isas.push_back(isa);
  }
  return isas;
}

int bits_of(WeightFormat grouped) {
  if (grouped == WeightFormat::kInt4) return 4;
  return grouped == WeightFormat::kInt6 ? 6 : 8;
}

std::unique_ptr<PackedWeight> pack_one(Backend& backend,
                                       const Weight& weight,
                                       std::span<const float> bias = {},
                                       Precision precision = Precision::kFast) {
  const Weight* part = &weight;
  return backend.pack({&part, 1}, bias, precision);
}

FloatMatrix run_linear(Backend& backend, const PackedWeight& weight, const FloatMatrix& x) {
  FloatMatrix out(x.rows(), weight.rows());
  backend.linear(out.tensor(), x.tensor(), weight);
  return out;
}

class LinearOnEveryIsa : public testing::TestWithParam<LinearCase> {};

TEST_P(LinearOnEveryIsa, EqualsTheReferenceBitForBit) {
  const LinearCase& shape = GetParam();
  const auto ref = make("ref", 2);
  for (const int bits : {8, 7}) {
    if (bits != 8 && shape.format != WeightFormat::kInt8) continue;
    const Weight weight = random_weight(shape, kSeed, bits);
    const FloatMatrix bias = random_matrix(1, shape.rows, kSeed + 5);
    const std::span<const float> bias_span(bias.data(), static_cast<size_t>(shape.rows));
    const FloatMatrix x = random_matrix(kTokenCounts.back(), shape.columns, kSeed + 6);
    const FloatMatrix expected = run_linear(*ref, *pack_one(*ref, weight, bias_span), x);
    for (const std::string_view isa : supported_isas()) {
      for (const int threads : {1, 2}) {  // the way of a product depends on how it divides
        const auto cpu = make("cpu", threads, isa);
        const auto packed = pack_one(*cpu, weight, bias_span);
        for (const int64_t tokens : kTokenCounts) {
          const FloatMatrix got = run_linear(*cpu, *packed, some_rows(x, 0, tokens));
          ASSERT_EQ(first_difference(got, expected), -1)
              << shape.name << " " << isa << ", " << threads << " threads, " << tokens
              << " tokens, " << bits << " bits";
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, LinearOnEveryIsa, testing::ValuesIn(kSmallCases));

TEST(Linear, ARowDoesNotDependOnBatchOrThreads) {
  for (const LinearCase& shape : kSmallCases) {
    const Weight weight = random_weight(shape, kSeed);
    const FloatMatrix x = random_matrix(40, shape.columns, kSeed + 6);
    const auto one = make("cpu", 1);
    const FloatMatrix expected = run_linear(*one, *pack_one(*one, weight), x);
    for (const int threads : {1, 2, 3}) {
      const auto cpu = make("cpu", threads);
      const auto packed = pack_one(*cpu, weight);
      for (const int64_t row : {0, 7, 39}) {
        const FloatMatrix alone = run_linear(*cpu, *packed, some_rows(x, row, 1));
        ASSERT_EQ(first_difference(alone, some_rows(expected, row, 1)), -1) << shape.name;
      }
      ASSERT_EQ(first_difference(run_linear(*cpu, *packed, x), expected), -1) << shape.name;
    }
  }
}

// One zero point for all groups is not stored with each of them.
TEST(Linear, EqualsTheReferenceWithOneZeroPoint) {
  for (const LinearCase& shape : kSmallCases) {
    if (shape.group_size == 0 || shape.offset == GroupOffset::kMinimum) continue;
    const int bits = bits_of(shape.format);
    for (const int zero : {0, 1 << (bits - 1), (1 << bits) - 1}) {
      GroupedWeight grouped = random_grouped(shape, bits, kSeed);
      std::fill(grouped.zeros.begin(), grouped.zeros.end(), static_cast<uint8_t>(zero));
      const Weight weight = std::move(grouped);
      const FloatMatrix x = random_matrix(70, shape.columns, kSeed + 6);
      const auto ref = make("ref", 2);
      const FloatMatrix expected = run_linear(*ref, *pack_one(*ref, weight), x);
      for (const std::string_view isa : supported_isas()) {
        const auto cpu = make("cpu", 2, isa);
        const auto packed = pack_one(*cpu, weight);
        for (const int64_t tokens : {1, 9, 70}) {
          const FloatMatrix got = run_linear(*cpu, *packed, some_rows(x, 0, tokens));
          ASSERT_EQ(first_difference(got, expected), -1) << shape.name << " " << isa << " " << zero;
        }
      }
    }
  }
}

// More rows than one worker takes at a time, on few strips of weights.
TEST(Linear, SplitsManyRowsAmongWorkers) {
  const LinearCase gate{"", 70, 96, WeightFormat::kInt4, 32, GroupOffset::kMinimum};
  const LinearCase up{"", 21, 96, WeightFormat::kBF16};
  const Weight weights[] = {random_weight(gate, 1), random_weight(up, 2)};
  const Weight* parts[] = {&weights[0], &weights[1]};
  const FloatMatrix x = random_matrix(401, 96, 5);
  const auto ref = make("ref", 2);
  const FloatMatrix expected = run_linear(*ref, *ref->pack(parts, {}, Precision::kFast), x);
  for (const std::string_view isa : supported_isas()) {
    for (const int threads : {1, 3}) {
      const auto cpu = make("cpu", threads, isa);
      const auto packed = cpu->pack(parts, {}, Precision::kFast);
      EXPECT_EQ(first_difference(run_linear(*cpu, *packed, x), expected), -1) << isa;
    }
  }
}

TEST(Linear, JoinsPartsOfDifferentFormats) {
  const LinearCase gate{"", 37, 96, WeightFormat::kInt4, 32, GroupOffset::kMinimum};
  const LinearCase up{"", 50, 96, WeightFormat::kInt8, 16};
  const LinearCase extra{"", 5, 96, WeightFormat::kBF16};
  const Weight weights[] = {random_weight(gate, 1), random_weight(up, 2), random_weight(extra, 3)};
  const Weight* parts[] = {&weights[0], &weights[1], &weights[2]};
  const FloatMatrix bias = random_matrix(1, 92, 4);
  const FloatMatrix x = random_matrix(33, 96, 5);
  const auto ref = make("ref", 1);
  const auto expected_weight = ref->pack(parts, {bias.data(), 92}, Precision::kFast);
  EXPECT_EQ(expected_weight->rows(), 92);
  const FloatMatrix expected = run_linear(*ref, *expected_weight, x);
  for (const std::string_view isa : supported_isas()) {
    const auto cpu = make("cpu", 2, isa);
    const auto packed = cpu->pack(parts, {bias.data(), 92}, Precision::kFast);
    EXPECT_EQ(first_difference(run_linear(*cpu, *packed, x), expected), -1) << isa;
  }
}

TEST(Linear, WritesOnlyItsColumnsOfAStridedOutput) {
  const LinearCase shape{"", 20, 64, WeightFormat::kInt4, 32};
  const auto cpu = make("cpu", 2);
  const auto packed = pack_one(*cpu, random_weight(shape, kSeed));
  const FloatMatrix x = random_matrix(9, 64, 2);
  FloatMatrix wide(9, 30);
  for (int64_t i = 0; i < 9 * 30; ++i) wide.data()[i] = -7.0f;
  cpu->linear(wide.tensor().slice_columns(5, 20), x.tensor(), *packed);
  const FloatMatrix expected = run_linear(*cpu, *packed, x);
  for (int64_t t = 0; t < 9; ++t) {
    for (int64_t n = 0; n < 30; ++n) {
      const float want = n >= 5 && n < 25 ? expected.row(t)[n - 5] : -7.0f;
      ASSERT_EQ(wide.row(t)[n], want) << t << " " << n;
    }
  }
}

// The quantised product stays near the product of the widened numbers: each activation is off by
// at most half a step d = max / 127.
TEST(Linear, StaysNearTheProductOfTheWidenedWeights) {
  const LinearCase shape{"", 64, 256, WeightFormat::kInt4, 64};
  const Weight weight = random_weight(shape, kSeed);
  const auto cpu = make("cpu", 1);
  const FloatMatrix x = random_matrix(3, 256, 9);
  const FloatMatrix got = run_linear(*cpu, *pack_one(*cpu, weight), x);
  const FloatMatrix exact = run_linear(*cpu, *pack_one(*cpu, weight, {}, Precision::kFloat32), x);
  const FloatMatrix wide = widen(weight);
  for (int64_t t = 0; t < 3; ++t) {
    for (int64_t n = 0; n < 64; ++n) {
      double bound = 1e-4;
      for (int64_t k = 0; k < 256; ++k) bound += std::fabs(wide.row(n)[k]) * 0.5 / 127;
      ASSERT_NEAR(got.row(t)[n], exact.row(t)[n], bound);
    }
  }
}

TEST(Linear, TreatsTinyGroupsAsZeroAndCarriesNaNOn) {
  const LinearCase shape{"", 16, 96, WeightFormat::kInt4, 32};
  const Weight weight = random_weight(shape, kSeed);
  FloatMatrix x = random_matrix(3, 96, 3);
  for (int64_t k = 32; k < 64; ++k) x.row(0)[k] = 0x1p-120f;
  for (int64_t k = 32; k < 64; ++k) x.row(1)[k] = 0;
  x.row(2)[40] = std::numeric_limits<float>::infinity();
  const auto ref = make("ref", 1);
  const FloatMatrix expected = run_linear(*ref, *pack_one(*ref, weight), x);
  EXPECT_TRUE(std::isfinite(expected.row(0)[0]));
  EXPECT_TRUE(std::isnan(expected.row(2)[0]));
  for (const std::string_view isa : supported_isas()) {
    const auto cpu = make("cpu", 1, isa);
    const FloatMatrix got = run_linear(*cpu, *pack_one(*cpu, weight), x);
    EXPECT_EQ(first_difference(got, expected), -1) << isa;
  }
}

// Largest codes against largest activations of one sign, in every position: what overflows an
// intermediate of 16 bits.
TEST(Linear, SurvivesTheLargestSums) {
  const std::vector<LinearCase> shapes = {{"", 16, 512, WeightFormat::kInt4, 512},
                                          {"", 16, 512, WeightFormat::kInt6, 512},
                                          {"", 16, 512, WeightFormat::kInt8, 512}};
  for (const LinearCase& shape : shapes) {
    for (const float sign : {1.0f, -1.0f}) {
      GroupedWeight weight = random_grouped(shape, bits_of(shape.format), 1);
      const auto top = static_cast<uint8_t>((1 << weight.bits) - 1);
      std::fill(weight.codes.begin(), weight.codes.end(), top);
      std::fill(weight.zeros.begin(), weight.zeros.end(), uint8_t{0});
      FloatMatrix x(20, 512);
      for (int64_t i = 0; i < 20 * 512; ++i) x.data()[i] = sign;
      const Weight stored = std::move(weight);
      const auto ref = make("ref", 1);
      const FloatMatrix expected = run_linear(*ref, *pack_one(*ref, stored), x);
      for (const std::string_view isa : supported_isas()) {
        const auto cpu = make("cpu", 1, isa);
        const FloatMatrix got = run_linear(*cpu, *pack_one(*cpu, stored), x);
        EXPECT_EQ(first_difference(got, expected), -1) << isa << " bits " << int{top};
      }
    }
  }
}

TEST(Pack, EmbedGivesBackEveryRowExactly) {
  for (const LinearCase& shape : kSmallCases) {
    const Weight weight = random_weight(shape, kSeed);
    std::vector<int32_t> tokens;
    for (int64_t row = shape.rows - 1; row >= 0; --row) tokens.push_back(static_cast<int32_t>(row));
    for (const std::string_view name : {"ref", "cpu"}) {
      const auto backend = make(name, 2);
      const auto packed = pack_one(*backend, weight);
      EXPECT_EQ(packed->note(), "") << shape.name;
      FloatMatrix out(shape.rows, shape.columns);
      backend->embed(out.tensor(), *packed, tokens);
      FloatMatrix expected(shape.rows, shape.columns);
      for (size_t t = 0; t < tokens.size(); ++t)
        widen_row(weight, tokens[t], expected.row(static_cast<int64_t>(t)));
      EXPECT_EQ(first_difference(out, expected), -1) << shape.name << " " << name;
    }
  }
}

TEST(Pack, EmbedFindsRowsOfJoinedParts) {
  const LinearCase a{"", 5, 32, WeightFormat::kInt8, 32};
  const LinearCase b{"", 7, 32, WeightFormat::kF32};
  const Weight weights[] = {random_weight(a, 1), random_weight(b, 2)};
  const Weight* parts[] = {&weights[0], &weights[1]};
  const std::vector<int32_t> tokens = {4, 5, 11};
  for (const std::string_view name : {"ref", "cpu"}) {
    const auto backend = make(name, 1);
    const auto packed = backend->pack(parts, {}, Precision::kFast);
    FloatMatrix out(3, 32);
    backend->embed(out.tensor(), *packed, tokens);
    FloatMatrix expected(3, 32);
    widen_row(weights[0], 4, expected.row(0));
    widen_row(weights[1], 0, expected.row(1));
    widen_row(weights[1], 6, expected.row(2));
    EXPECT_EQ(first_difference(out, expected), -1) << name;
  }
}

TEST(Pack, WidensToTheRequestedPrecision) {
  const LinearCase shape{"", 20, 64, WeightFormat::kInt4, 32};
  const Weight weight = random_weight(shape, kSeed);
  const FloatMatrix x = random_matrix(13, 64, 1);
  for (const Precision precision : {Precision::kBF16, Precision::kFloat32}) {
    const auto ref = make("ref", 1);
    const FloatMatrix expected = run_linear(*ref, *pack_one(*ref, weight, {}, precision), x);
    const auto cpu = make("cpu", 1);
    const auto packed = pack_one(*cpu, weight, {}, precision);
    EXPECT_EQ(first_difference(run_linear(*cpu, *packed, x), expected), -1);
    if (precision == Precision::kBF16) {
      EXPECT_THAT(std::string(packed->note()), testing::HasSubstr("BF16"));
    } else {
      EXPECT_EQ(packed->note(), "");
    }
  }
}

TEST(Pack, SaysWhatItRounded) {
  const LinearCase shape{"", 16, 64, WeightFormat::kInt4, 32};
  GroupedWeight weight = random_grouped(shape, 4, kSeed);
  weight.scales[3] = 0.0123456789f;
  const Weight stored = std::move(weight);
  for (const std::string_view name : {"ref", "cpu"}) {
    const auto backend = make(name, 1);
    EXPECT_THAT(std::string(pack_one(*backend, stored)->note()), testing::HasSubstr("f16"));
  }
}

TEST(Pack, KeepsScalesOutsideTheRangeOfHalfPrecision) {
  const LinearCase shape{"", 16, 64, WeightFormat::kInt4, 32};
  for (const float factor : {0x1p40f, 0x1p-40f}) {
    GroupedWeight weight = random_grouped(shape, 4, kSeed);
    for (float& scale : weight.scales) scale *= factor;
    const Weight stored = std::move(weight);
    const std::vector<int32_t> tokens = {0, 9};
    for (const std::string_view name : {"ref", "cpu"}) {
      const auto backend = make(name, 1);
      const auto packed = pack_one(*backend, stored);
      EXPECT_EQ(packed->note(), "");
      FloatMatrix out(2, 64);
      backend->embed(out.tensor(), *packed, tokens);
      FloatMatrix expected(2, 64);
      widen_row(stored, 0, expected.row(0));
      widen_row(stored, 9, expected.row(1));
      EXPECT_EQ(first_difference(out, expected), -1) << name;
    }
  }
}

TEST(Pack, CountsItsBytes) {
  const LinearCase shape{"", 64, 128, WeightFormat::kInt4, 64};
  const auto cpu = make("cpu", 1);
  // 4-bit codes and, for each of 2 groups of 64 rows, a scale of 2 bytes and a zero point of 1.
  EXPECT_EQ(pack_one(*cpu, random_weight(shape, 1))->bytes(), 64u * 128 / 2 + 64u * 2 * 3);
  // A zero point that all groups share takes nothing.
  const LinearCase six{"", 64, 128, WeightFormat::kInt6, 16};
  GroupedWeight grouped = random_grouped(six, 6, 1);
  std::fill(grouped.zeros.begin(), grouped.zeros.end(), uint8_t{32});
  EXPECT_EQ(pack_one(*cpu, Weight(std::move(grouped)))->bytes(), 64u * 128 * 6 / 8 + 64u * 8 * 2);
}

TEST(MakeBackend, RefusesUnknownNamesWithTheListOfKnownOnes) {
  const auto backend = make_backend({.name = "gpu"});
  ASSERT_FALSE(backend.has_value());
  EXPECT_EQ(backend.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(backend.error().message, testing::HasSubstr("cpu, ref"));
  const auto isa = make_backend({.name = "cpu", .isa = "sse9"});
  ASSERT_FALSE(isa.has_value());
  EXPECT_EQ(isa.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(
      isa.error().message,
      testing::HasSubstr("scalar, neon, i8mm, avx2, avxvnni, avx512, avx512vnni, avx512bf16, amx"));
}

TEST(MakeBackend, RefusesAnImpossibleNumberOfThreads) {
  const auto backend = make_backend({.name = "ref", .threads = -1});
  ASSERT_FALSE(backend.has_value());
  EXPECT_EQ(backend.error().code, ErrorCode::kInvalidArgument);
}

TEST(MakeBackend, RefusesAnInstructionSetThatTheMachineLacks) {
  for (const std::string_view isa : cpu_isas()) {
    if (cpu_supports(isa)) continue;
    const auto backend = make_backend({.name = "cpu", .isa = isa});
    ASSERT_FALSE(backend.has_value());
    EXPECT_EQ(backend.error().code, ErrorCode::kUnsupported);
  }
  EXPECT_TRUE(cpu_supports("scalar"));
  EXPECT_FALSE(cpu_supports("sse9"));
}

TEST(MakeBackend, NamesTheInstructionSet) {
  EXPECT_EQ(make("cpu", 1, "scalar")->name(), "cpu/scalar");
  EXPECT_EQ(make("ref", 3)->pool().size(), 3);
}

}  // namespace
}  // namespace quern
