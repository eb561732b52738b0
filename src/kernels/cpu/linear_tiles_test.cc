// The kernels for tiles against the oracle, bit for bit: on emulated tiles with plain lanes and
// with those of AVX-512, and as they were compiled for AMX.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/float16.h"
#include "base/random.h"
#include "kernels/backend.h"
#include "kernels/cases.h"
#include "kernels/cpu/avx512.h"
#include "kernels/cpu/dense_ops.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/linear_ops.h"
#include "kernels/cpu/packed.h"
#include "kernels/cpu/target.h"
#include "kernels/cpu/tile_emulator.h"
#include "kernels/cpu/tile_ops.h"
#include "kernels/cpu/tile_trap.h"
#include "kernels/test_weights.h"

#if defined(__x86_64__)
QUERN_TARGET_BEGIN(QUERN_TARGET_AVX512_VNNI)

namespace quern::cpu {
namespace {
namespace avx512 {

#include "kernels/cpu/linear_avx512.inl"

inline I i_dot_halves(I sum, I pairs, int32_t x) {
  return _mm512_dpwssd_epi32(sum, pairs, _mm512_set1_epi32(x));
}

using Tiles = EmulatedTiles;

#include "kernels/cpu/linear_tiles.inl"

}  // namespace avx512
}  // namespace
}  // namespace quern::cpu

QUERN_TARGET_END
#endif

namespace quern::cpu {
namespace {
namespace plain {

#include "kernels/cpu/linear_scalar.inl"

using Tiles = EmulatedTiles;

#include "kernels/cpu/linear_tiles.inl"

}  // namespace plain

constexpr uint64_t kSeed = 77;

struct Variant {
  std::string_view name;
  LinearKernels kernels;
};

// Those that this machine runs.
std::vector<Variant> variants() {
  std::vector<Variant> all = {{"plain",
                               {&table_for(kLinearOps, Isa::kScalar),
                                &table_for(kDenseOps, Isa::kScalar), &plain::kTileKernels}}};
#if defined(__x86_64__)
  if (isa_supported(Isa::kAvx512Vnni)) {
    const LinearOps* ops = &table_for(kLinearOps, Isa::kAvx512Vnni);
    const DenseOps* dense = &table_for(kDenseOps, Isa::kAvx512);
    all.push_back({"avx512", {ops, dense, &avx512::kTileKernels}});
    all.push_back({"amx", {ops, dense, tile_ops_for(Isa::kAmx)}});
  }
#endif
  return all;
}

// Emulates what the machine lacks of variant "amx"; a machine with tiles is asked for them first.
class LinearTiles : public testing::Test {
#if defined(__x86_64__)
 protected:
  const bool native_ = isa_supported(Isa::kAmx);

 private:
  TileTrap trap_;
#endif
};

class LinearTilesCases : public LinearTiles, public testing::WithParamInterface<LinearCase> {};

using Parts = std::vector<const Weight*>;

FloatMatrix reference(const Parts& parts, std::span<const float> bias, const FloatMatrix& x) {
  const auto ref = std::move(make_backend({.name = "ref", .threads = 2})).value();
  const auto packed = ref->pack(parts, bias, Precision::kFast);
  FloatMatrix out(x.rows(), packed->rows());
  ref->linear(out.tensor(), x.tensor(), *packed);
  return out;
}

// The product by a variant's kernels. The output is a part of a wider matrix, whose other columns
// must stay as they are.
FloatMatrix product(const Variant& variant,
                    ThreadPool& pool,
                    const CpuWeight& weight,
                    const FloatMatrix& x) {
  constexpr int64_t kMargin = 3;
  constexpr float kUntouched = -7.0f;
  FloatMatrix wide(x.rows(), weight.rows() + 2 * kMargin);
  std::fill_n(wide.data(), wide.rows() * wide.columns(), kUntouched);
  LinearScratch scratch;
  linear(pool, variant.kernels, scratch, wide.tensor().slice_columns(kMargin, weight.rows()),
         x.tensor(), weight);
  FloatMatrix out(x.rows(), weight.rows());
  for (int64_t t = 0; t < x.rows(); ++t) {
    const float* row = wide.row(t);
    std::copy_n(row + kMargin, weight.rows(), out.row(t));
    for (int64_t i = 0; i < kMargin; ++i) {
      EXPECT_EQ(row[i], kUntouched) << t;
      EXPECT_EQ(row[wide.columns() - 1 - i], kUntouched) << t;
    }
  }
  return out;
}

TEST_P(LinearTilesCases, EqualTheReferenceBitForBit) {
  const LinearCase& shape = GetParam();
  ThreadPool pool(2);
  HugePageArena arena;
  for (const int bits : {8, 7}) {
    if (bits != 8 && shape.format != WeightFormat::kInt8) continue;
    const Weight weight = random_weight(shape, kSeed, bits);
    const Parts parts = {&weight};
    const FloatMatrix bias = random_matrix(1, shape.rows, kSeed + 5);
    const std::span<const float> bias_span(bias.data(), static_cast<size_t>(shape.rows));
    const FloatMatrix x = random_matrix(kTokenCounts.back(), shape.columns, kSeed + 6);
    const FloatMatrix expected = reference(parts, bias_span, x);
    const auto packed = pack_weight(pool, parts, bias_span, Precision::kFast, arena);
    for (const Variant& variant : variants()) {
      for (const int64_t tokens : kTokenCounts) {
        const FloatMatrix got = product(variant, pool, *packed, some_rows(x, 0, tokens));
        ASSERT_EQ(first_difference(got, expected), -1)
            << shape.name << " " << variant.name << " tokens " << tokens << " bits " << bits;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, LinearTilesCases, testing::ValuesIn(kSmallCases));

// A layer of up to three parts and its activations, drawn from a seed.
struct RandomLayer {
  std::vector<Weight> weights;
  FloatMatrix bias;
  FloatMatrix x;
  std::string text;

  explicit RandomLayer(uint64_t seed) : seed_(seed) {
    constexpr int kGroupSizes[] = {16, 32, 64, 96, 128, 160, 192, 256, 320, 384, 512};
    const int largest = kGroupSizes[pick(std::size(kGroupSizes))];
    const int64_t columns = largest * (1 + pick(4));
    text = "columns " + std::to_string(columns);
    const int64_t parts = 1 + pick(3);
    int64_t rows = 0;
    for (int64_t i = 0; i < parts; ++i) {
      const LinearCase shape = draw_case(columns, largest);
      weights.push_back(
          random_weight(shape, seed + static_cast<uint64_t>(i), 5 + static_cast<int>(pick(4))));
      rows += shape.rows;
    }
    if (pick(2) == 0) bias = random_matrix(1, rows, seed + 9);
    x = random_matrix(8 + pick(140), columns, seed + 10);
    text += ", tokens " + std::to_string(x.rows());
  }

  std::span<const float> bias_span() const {
    return {bias.data(), static_cast<size_t>(bias.columns())};
  }

 private:
  int64_t pick(uint64_t count) {
    return static_cast<int64_t>(random_bits(seed_, 7, position_++) % count);
  }

  LinearCase draw_case(int64_t columns, int largest) {
    const int64_t rows = 1 + pick(150);
    if (pick(8) == 0) return {"", rows, columns, WeightFormat::kBF16};
    const int group_size = largest % 64 == 0 && pick(2) == 0 ? 32 : largest;
    constexpr WeightFormat kFormats[] = {WeightFormat::kInt4, WeightFormat::kInt6,
                                         WeightFormat::kInt8};
    const WeightFormat format = kFormats[pick(3)];
    const auto offset = pick(2) == 0 ? GroupOffset::kZeroPoint : GroupOffset::kMinimum;
    text += ", " + std::to_string(rows) + " rows g" + std::to_string(group_size);
    return {"", rows, columns, format, group_size, offset};
  }

  uint64_t seed_;
  uint64_t position_ = 0;
};

TEST_F(LinearTiles, EqualTheReferenceOnRandomLayers) {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    const RandomLayer layer(seed);
    Parts parts;
    for (const Weight& weight : layer.weights) parts.push_back(&weight);
    const FloatMatrix expected = reference(parts, layer.bias_span(), layer.x);
    ThreadPool pool(1 + static_cast<int>(seed % 3));
    HugePageArena arena;
    const auto packed = pack_weight(pool, parts, layer.bias_span(), Precision::kFast, arena);
    for (const Variant& variant : variants()) {
      ASSERT_EQ(first_difference(product(variant, pool, *packed, layer.x), expected), -1)
          << "seed " << seed << " " << variant.name << ": " << layer.text;
    }
  }
}

// More rows than a worker takes at a time, in slices, on fewer strips than workers want.
TEST_F(LinearTiles, EqualTheReferenceInPartsAndSlices) {
  const LinearCase down{"", 40, 8448, WeightFormat::kInt4, 128};
  const LinearCase whole{"", 20, 8448, WeightFormat::kInt8, 8448};
  const Weight weights[] = {random_weight(down, 1), random_weight(whole, 2, 7)};
  const Parts parts = {&weights[0], &weights[1]};
  const FloatMatrix x = random_matrix(270, 8448, 5);
  const FloatMatrix expected = reference(parts, {}, x);
  ThreadPool pool(3);
  HugePageArena arena;
  const auto packed = pack_weight(pool, parts, {}, Precision::kFast, arena);
  for (const Variant& variant : variants()) {
    if (variant.name == "plain") continue;
    EXPECT_EQ(first_difference(product(variant, pool, *packed, x), expected), -1) << variant.name;
  }
}

TEST_F(LinearTiles, ARowDoesNotDependOnTheBatch) {
  const LinearCase shape{"", 50, 256, WeightFormat::kInt4, 64};
  const Weight weight = random_weight(shape, kSeed);
  const FloatMatrix x = random_matrix(90, 256, 2);
  ThreadPool pool(2);
  HugePageArena arena;
  const auto packed = pack_weight(pool, Parts{&weight}, {}, Precision::kFast, arena);
  for (const Variant& variant : variants()) {
    const FloatMatrix all = product(variant, pool, *packed, x);
    for (const int64_t tokens : {1, 7, 8, 15, 64, 65}) {
      const FloatMatrix some = product(variant, pool, *packed, some_rows(x, 0, tokens));
      EXPECT_EQ(first_difference(some, all), -1) << variant.name << " " << tokens;
    }
  }
}

// Largest codes against largest activations of one sign.
// Two matrices that may be multiplied side by side, and some that may not.
struct GatedCase {
  LinearCase gate;
  LinearCase up;
  bool biased = false;
};

std::vector<GatedCase> gated_cases() {
  constexpr auto kInt4 = WeightFormat::kInt4;
  constexpr auto kInt8 = WeightFormat::kInt8;
  constexpr auto kMinimum = GroupOffset::kMinimum;
  const LinearCase plain{"int4 g64", 100, 192, kInt4, 64};
  const LinearCase few{"one panel", 9, 128, kInt4, 32};
  const LinearCase minima{"minima", 160, 128, kInt4, 32, kMinimum};
  const LinearCase wide{"int8", 80, 256, kInt8, 128};
  const LinearCase whole{"whole row", 48, 1056, kInt8, 1056};
  const LinearCase deep{"two slices", 33, 4224, kInt4, 128};
  const LinearCase deeper{"two slices of strips", 64, 6272, kInt4, 128};
  const LinearCase strips{"whole strips", 256, 192, kInt4, 64};
  const LinearCase minimum{"strips with minima", 272, 128, kInt4, 128, kMinimum};
  const LinearCase dense{"bf16", 48, 192, WeightFormat::kBF16};
  const LinearCase other{"int8 g64", 100, 192, kInt8, 64};
  return {{plain, plain},     {few, few},     {minima, minima}, {wide, wide},
          {whole, whole},     {deep, deep},   {deeper, deeper}, {strips, strips},
          {minimum, minimum}, {dense, dense}, {plain, other},   {plain, plain, true}};
}

// Those of matrix units, and every instruction set without one.
std::vector<Variant> all_variants() {
  std::vector<Variant> all = variants();
  for (int i = 0; i < kIsaCount; ++i) {
    const auto isa = static_cast<Isa>(i);
    if (!isa_supported(isa)) continue;
    LinearKernels kernels = linear_kernels(isa);
    kernels.tiles = nullptr;
    all.push_back({isa_name(isa), kernels});
  }
  return all;
}

TEST_F(LinearTiles, GateAsTheTwoStepsDo) {
  ThreadPool pool(2);
  HugePageArena arena;
  for (const GatedCase& shape : gated_cases()) {
    const Weight weights[] = {random_weight(shape.gate, kSeed), random_weight(shape.up, kSeed + 1)};
    const FloatMatrix bias = random_matrix(1, shape.biased ? 2 * shape.gate.rows : 0, kSeed + 2);
    const auto packed =
        pack_weight(pool, Parts{&weights[0], &weights[1]},
                    {bias.data(), static_cast<size_t>(bias.columns())}, Precision::kFast, arena);
    const FloatMatrix x = random_matrix(100, shape.gate.columns, kSeed + 3);
    for (Variant variant : all_variants()) {
      variant.kernels.gate = gate_kernel_for(Isa::kScalar);
      for (const int64_t tokens : {1, 5, 8, 33, 64, 100}) {
        const FloatMatrix rows = some_rows(x, 0, tokens);
        LinearScratch scratch;
        const FloatMatrix joined(tokens, packed->rows());
        const FloatMatrix expected(tokens, shape.gate.rows);
        linear(pool, variant.kernels, scratch, joined.tensor(), rows.tensor(), *packed);
        silu_multiply(pool, variant.kernels.gate, expected.tensor(), joined.tensor());
        const FloatMatrix got(tokens, shape.gate.rows);
        gated_linear(pool, variant.kernels, scratch, got.tensor(), rows.tensor(), *packed);
        ASSERT_EQ(first_difference(got, expected), -1)
            << shape.gate.name << " " << variant.name << " tokens " << tokens;
      }
    }
  }
}

TEST_F(LinearTiles, SurviveTheLargestSums) {
  const LinearCase shape{"", 16, 4096, WeightFormat::kInt8, 4096};
  for (const float sign : {1.0f, -1.0f}) {
    for (const int zero : {0, 128, 255}) {
      GroupedWeight grouped = random_grouped(shape, 8, 1);
      std::fill(grouped.codes.begin(), grouped.codes.end(), uint8_t{255});
      std::fill(grouped.zeros.begin(), grouped.zeros.end(), static_cast<uint8_t>(zero));
      const Weight weight = std::move(grouped);
      FloatMatrix x(9, 4096);
      std::fill_n(x.data(), 9 * 4096, sign);
      const FloatMatrix expected = reference({&weight}, {}, x);
      ThreadPool pool(1);
      HugePageArena arena;
      const auto packed = pack_weight(pool, Parts{&weight}, {}, Precision::kFast, arena);
      for (const Variant& variant : variants()) {
        EXPECT_EQ(first_difference(product(variant, pool, *packed, x), expected), -1)
            << variant.name << " zero " << zero;
      }
    }
  }
}

TEST_F(LinearTiles, GiveTheirRegistersUp) {
  const LinearCase shape{"", 16, 64, WeightFormat::kInt4, 64};
  const Weight weight = random_weight(shape, 1);
  ThreadPool pool(1);
  HugePageArena arena;
  const auto packed = pack_weight(pool, Parts{&weight}, {}, Precision::kFast, arena);
  for (const Variant& variant : variants()) {
    product(variant, pool, *packed, random_matrix(8, 64, 2));
    EXPECT_FALSE(EmulatedTiles::here().configured()) << variant.name;
  }
}

#if defined(__x86_64__)
TEST_F(LinearTiles, RunAsCompiledForAmxWhereTheMachineHasNone) {
  if (native_ || !isa_supported(Isa::kAvx512Vnni)) GTEST_SKIP();
  const LinearCase shape{"", 64, 128, WeightFormat::kInt4, 128};
  const Weight weight = random_weight(shape, 1);
  ThreadPool pool(1);
  HugePageArena arena;
  const auto packed = pack_weight(pool, Parts{&weight}, {}, Precision::kFast, arena);
  const int64_t before = TileTrap::count();
  product(variants().back(), pool, *packed, random_matrix(32, 128, 2));
  // Four jobs of one panel. Each configures and releases; its one step stores what the registers of
  // 2 sums held before, zeroes them, in each of 2 products of 64 columns loads 3 tiles for 2
  // products, and stores the sums.
  constexpr int64_t kJob = 2 + 2 + 2 + 2 * (3 + 2) + 2;
  EXPECT_EQ(TileTrap::count() - before, 4 * kJob);
}
#endif

}  // namespace
}  // namespace quern::cpu
