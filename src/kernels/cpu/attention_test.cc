#include "kernels/cpu/attention.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <ostream>

#include <gtest/gtest.h>

#include "kernels/kv_format.h"
#include "kernels/ref/attention.h"
#include "kernels/ref/attention_testing.h"

namespace quern::cpu {
namespace {

using namespace testing_attention;

// A pool, an instruction set and the scratch that goes with them.
struct Engine {
  Engine(int threads, Isa isa_in) : pool(threads), isa(isa_in) {}

  Operators operators() {
    return {kv_block_bytes,
            [this](const KvLayer& layer, Tensor k, Tensor v, std::span<const SequenceSpan> s) {
              store_kv(pool, isa, layer, k, v, s);
            },
            [this](Tensor out, Tensor q, const KvLayer& layer, std::span<const SequenceSpan> s,
                   const AttentionParams& params) {
              attention(pool, isa, scratch, out, q, layer, s, params);
            },
            load_kv};
  }

  ThreadPool pool;
  Isa isa;
  AttentionScratch scratch;
};

std::vector<Isa> isas() {
  std::vector<Isa> all;
  for (int i = 0; i < kIsaCount; ++i) {
    if (isa_supported(static_cast<Isa>(i))) all.push_back(static_cast<Isa>(i));
  }
  return all;
}

std::vector<Shape> shapes() {
  std::vector<Shape> all;
  for (const KvDType dtype : {KvDType::kInt8, KvDType::kBF16, KvDType::kF32}) {
    all.push_back({{dtype, 1, 8}, 1, 0});
    all.push_back({{dtype, 2, 16}, 4, 0});
    all.push_back({{dtype, 3, 72}, 3, 0});
    all.push_back({{dtype, 3, 64}, 9, 0});
    all.push_back({{dtype, 2, 80}, 14, 100});
    all.push_back({{dtype, 8, 96}, 8, 0});
    all.push_back({{dtype, 2, 128}, 12, 33});
    all.push_back({{dtype, 1, 256}, 5, 0});
  }
  return all;
}

std::string describe(const Shape& shape) {
  return "dtype " + std::to_string(static_cast<int>(shape.layout.dtype)) + " heads " +
         std::to_string(shape.heads) + " kv_heads " + std::to_string(shape.layout.kv_heads) +
         " head_dim " + std::to_string(shape.layout.head_dim) + " window " +
         std::to_string(shape.window);
}

std::vector<FloatMatrix> run(const Shape& shape,
                             Engine& engine,
                             std::span<const SequenceData> data,
                             std::span<const Step> steps,
                             uint64_t seed) {
  const Operators ops = engine.operators();
  return run_steps(shape, ops, data, Cache(shape, ops, data, seed), steps);
}

bool same_bits(const FloatMatrix& a, const FloatMatrix& b) {
  return a.rows() == b.rows() && a.columns() == b.columns() &&
         std::memcmp(a.data(), b.data(), static_cast<size_t>(a.rows() * a.columns()) * 4) == 0;
}

// The largest magnitude of each row of v.
std::vector<double> row_maxima(const FloatMatrix& v) {
  std::vector<double> most;
  for (int64_t t = 0; t < v.rows(); ++t) {
    double m = 0;
    for (int64_t i = 0; i < v.columns(); ++i) {
      m = std::max(m, static_cast<double>(std::fabs(v.row(t)[i])));
    }
    most.push_back(m);
  }
  return most;
}

// How far a score may be off because q has 8 bits: half a step of q meets every |k|.
double score_error(const Shape& shape, const float* q, const float* k) {
  double error = 0;
  for (int begin = 0; begin < shape.layout.head_dim; begin += kKeyGroup) {
    double most = 0, sum = 0;
    for (int i = begin; i < std::min(begin + kKeyGroup, shape.layout.head_dim); ++i) {
      most = std::max(most, static_cast<double>(std::fabs(q[i])));
      sum += static_cast<double>(std::fabs(k[i]));
    }
    error += most / 254 * sum;
  }
  return error * static_cast<double>(shape.params().scale);
}

// How far the result of one row may be from exact attention over the numbers of the cache.
double tolerance(const Shape& shape,
                 const float* q,
                 const HeadCache& held,
                 const Exact& exact,
                 const std::vector<double>& v_most) {
  const auto tokens = static_cast<int64_t>(exact.probabilities.size());
  double most = 0, scores = 0, steps = 0;
  for (int64_t begin = 0; begin < tokens; begin += kKvBlockTokens) {
    double block = 0;
    for (int64_t t = begin; t < std::min(tokens, begin + kKvBlockTokens); ++t) {
      const double p = exact.probabilities[static_cast<size_t>(t)];
      if (p == 0) continue;
      most = std::max(most, v_most[static_cast<size_t>(t)]);
      scores = std::max(scores, score_error(shape, q, held.k.row(t)));
      block = std::max(block, p * v_most[static_cast<size_t>(t)]);
    }
    // Each of 32 probabilities is off by half a step of the largest / 255.
    steps += kKvBlockTokens * block / 510;
  }
  // float32: scores of |s| < 32 carry 32 * 2^-24 * sqrt(head_dim) at most, sums less.
  const double rounding = 5e-5 * (1 + most);
  if (shape.layout.dtype != KvDType::kInt8) return rounding;
  return std::expm1(2 * scores) * (most + steps) + steps + rounding;
}

TEST(CpuAttention, StoresTheSameNumbersAsTheReference) {
  ThreadPool pool(2);
  for (const Isa isa : isas()) {
    Engine engine(2, isa);
    for (const Shape& shape : shapes()) {
      std::vector<SequenceData> data;
      data.push_back(random_sequence(shape, 70, 1));
      data[0].k.row(3)[0] = 1000.0f;
      std::fill_n(data[0].k.row(4), shape.kv_width(), 0.0f);
      std::fill_n(data[0].v.row(5), shape.kv_width(), 0.0f);
      std::fill_n(data[0].k.row(7), shape.kv_width(), 1e-33f);  // no scale can hold it
      data[0].v.row(6)[1] = std::numeric_limits<float>::infinity();
      const Operators ops = engine.operators();
      const Operators oracle = {
          ref::kv_block_bytes,
          [&](const KvLayer& layer, Tensor k, Tensor v, std::span<const SequenceSpan> s) {
            ref::store_kv(pool, layer, k, v, s);
          },
          [](Tensor, Tensor, const KvLayer&, std::span<const SequenceSpan>,
             const AttentionParams&) {},
          ref::load_kv};
      const Cache cache(shape, ops, data, 3), expected(shape, oracle, data, 4);
      run_steps(shape, ops, data, cache, one_step(data));
      run_steps(shape, oracle, data, expected, one_step(data));
      for (int head = 0; head < shape.layout.kv_heads; ++head) {
        const HeadCache a = read_head(ops, cache, 0, 70, head);
        const HeadCache b = read_head(oracle, expected, 0, 70, head);
        for (int64_t i = 0; i < a.k.rows() * a.k.columns(); ++i) {
          ASSERT_EQ(a.k.data()[i], b.k.data()[i]) << describe(shape) << isa_name(isa);
          if (std::isnan(a.v.data()[i]) && std::isnan(b.v.data()[i])) continue;
          ASSERT_EQ(a.v.data()[i], b.v.data()[i]) << describe(shape) << isa_name(isa);
        }
      }
    }
  }
}

TEST(CpuAttention, AgreesWithFloat64WithinTheBoundOfItsFormats) {
  Engine engine(2, best_isa());
  const Operators ops = engine.operators();
  for (const Shape& shape : shapes()) {
    std::vector<SequenceData> data;
    data.push_back(random_sequence(shape, 300, 11));
    const Cache cache(shape, ops, data, 12);
    const auto outs = run_steps(shape, ops, data, cache, one_step(data));
    const int dims = shape.layout.head_dim;
    for (int head = 0; head < shape.heads; ++head) {
      const HeadCache held =
          read_head(ops, cache, 0, 300, head / (shape.heads / shape.layout.kv_heads));
      const std::vector<double> v_most = row_maxima(held.v);
      for (int64_t p = 0; p < 300; p += 7) {
        const float* q = data[0].q.row(p) + head * dims;
        const Exact exact = exact_attention(shape, q, held.k, held.v, p);
        const double allowed = tolerance(shape, q, held, exact, v_most);
        for (int i = 0; i < dims; ++i) {
          ASSERT_NEAR(outs[0].row(p)[head * dims + i], exact.out[static_cast<size_t>(i)], allowed)
              << describe(shape) << " position " << p;
        }
      }
    }
  }
}

// Root of the summed squares of the errors against attention over the keys and values as they were
// given, over that of the exact results.
double relative_error(const Shape& shape, const SequenceData& data, const FloatMatrix& out) {
  const int dims = shape.layout.head_dim;
  double error = 0, norm = 0;
  for (int head = 0; head < shape.heads; ++head) {
    FloatMatrix k(data.tokens(), dims), v(data.tokens(), dims);
    const int kv_head = head / (shape.heads / shape.layout.kv_heads);
    for (int64_t t = 0; t < data.tokens(); ++t) {
      std::copy_n(data.k.row(t) + kv_head * dims, dims, k.row(t));
      std::copy_n(data.v.row(t) + kv_head * dims, dims, v.row(t));
    }
    for (int64_t p = 0; p < data.tokens(); p += 5) {
      const Exact exact = exact_attention(shape, data.q.row(p) + head * dims, k, v, p);
      for (int i = 0; i < dims; ++i) {
        const double x = exact.out[static_cast<size_t>(i)];
        error += (out.row(p)[head * dims + i] - x) * (out.row(p)[head * dims + i] - x);
        norm += x * x;
      }
    }
  }
  return std::sqrt(error / norm);
}

// Gaussian data: 8 bits of k, v, q and p each cost about 0.4%. One channel of the keys at 50 times
// the others, as models with biases of keys have it, must not cost the other groups their
// precision.
TEST(CpuAttention, Int8CostsAboutOnePercentEvenWithAnOutlierChannel) {
  Engine engine(2, best_isa());
  const Shape shape{{KvDType::kInt8, 2, 128}, 4, 0};
  std::vector<SequenceData> data;
  data.push_back(random_sequence(shape, 400, 21));
  const auto plain = run(shape, engine, data, one_step(data), 1);
  EXPECT_LT(relative_error(shape, data[0], plain[0]), 0.011);
  for (int64_t t = 0; t < 400; ++t) {
    data[0].k.row(t)[5] = 50.0f;
    data[0].k.row(t)[128 + 70] = -50.0f;
  }
  const auto outlier = run(shape, engine, data, one_step(data), 1);
  EXPECT_LT(relative_error(shape, data[0], outlier[0]), 0.10);
}

// Cuts `tokens` of each sequence into random chunks, sequences mixed at random.
std::vector<Step> random_steps(std::span<const SequenceData> data, uint64_t seed) {
  std::vector<Step> steps;
  std::vector<int64_t> left;
  for (const SequenceData& s : data) left.push_back(s.tokens());
  for (uint64_t i = 0; std::any_of(left.begin(), left.end(), [](int64_t n) { return n > 0; });
       ++i) {
    Step step;
    for (size_t s = 0; s < data.size(); ++s) {
      const uint64_t dice = random_bits(seed, s, i);
      if (left[s] == 0 || dice % 4 == 0) continue;
      const int64_t most = dice % 4 == 1 ? 1 : dice % 4 == 2 ? 20 : 200;
      const int64_t count =
          std::min(left[s], 1 + static_cast<int64_t>((dice >> 8) % static_cast<uint64_t>(most)));
      step.push_back({s, count});
      left[s] -= count;
    }
    if (!step.empty()) steps.push_back(step);
  }
  return steps;
}

std::vector<Step> one_by_one(int64_t tokens) {
  return std::vector<Step>(static_cast<size_t>(tokens), Step{{0, 1}});
}

TEST(CpuAttention, GivesTheSameBitsInAnyChunksBatchAndNumberOfThreads) {
  Engine alone(1, best_isa());
  for (const Shape& shape : shapes()) {
    std::vector<SequenceData> data;
    for (const int64_t tokens : {600, 33, 290, 1}) {
      data.push_back(random_sequence(shape, tokens, 100 + static_cast<uint64_t>(tokens)));
    }
    std::vector<FloatMatrix> expected;
    for (const SequenceData& s : data) {
      auto out = run(shape, alone, {&s, 1}, one_by_one(s.tokens()), 1);
      expected.push_back(std::move(out[0]));
    }
    for (const int threads : {1, 2, 3}) {
      Engine engine(threads, best_isa());
      const auto whole = run(shape, engine, data, one_step(data), 7);
      const auto mixed =
          run(shape, engine, data, random_steps(data, static_cast<uint64_t>(threads)), 8);
      for (size_t s = 0; s < data.size(); ++s) {
        ASSERT_TRUE(same_bits(whole[s], expected[s])) << describe(shape) << " threads " << threads;
        ASSERT_TRUE(same_bits(mixed[s], expected[s])) << describe(shape) << " threads " << threads;
      }
    }
  }
}

TEST(CpuAttention, GivesTheSameBitsOnEveryInstructionSet) {
  Engine best(1, best_isa());
  for (const Shape& shape : shapes()) {
    std::vector<SequenceData> data;
    data.push_back(random_sequence(shape, 90, 31));
    data.push_back(random_sequence(shape, 270, 32));
    const std::vector<Step> steps = {{{0, 40}, {1, 264}}, {{0, 1}, {1, 5}}, {{0, 49}, {1, 1}}};
    const auto expected = run(shape, best, data, steps, 1);
    for (const Isa isa : isas()) {
      Engine engine(2, isa);
      const auto outs = run(shape, engine, data, steps, 2);
      for (size_t s = 0; s < data.size(); ++s) {
        for (int64_t p = 0; p < (s == 0 ? 90 : 270); ++p) {
          ASSERT_EQ(std::memcmp(outs[s].row(p), expected[s].row(p),
                                static_cast<size_t>(outs[s].columns()) * 4),
                    0)
              << describe(shape) << " " << isa_name(isa) << " position " << p;
        }
      }
    }
  }
}

TEST(CpuAttention, OneTokenReturnsItsValue) {
  for (const Isa isa : isas()) {
    Engine engine(1, isa);
    for (const Shape& shape : shapes()) {
      std::vector<SequenceData> data;
      data.push_back(random_sequence(shape, 1, 41));
      const Operators ops = engine.operators();
      const Cache cache(shape, ops, data, 1);
      const auto outs = run_steps(shape, ops, data, cache, one_step(data));
      for (int64_t i = 0; i < shape.query_width(); ++i) {
        const int64_t head = i / shape.layout.head_dim / (shape.heads / shape.layout.kv_heads);
        const HeadCache held = read_head(ops, cache, 0, 1, static_cast<int>(head));
        const float expected = held.v.row(0)[i % shape.layout.head_dim];
        ASSERT_NEAR(outs[0].row(0)[i], expected, std::fabs(expected) * 0x1p-21 + 1e-7)
            << describe(shape);
      }
    }
  }
}

TEST(CpuAttention, EqualScoresAverageTheWindow) {
  Engine engine(2, best_isa());
  for (const int64_t window : {0, 1, 2, 31, 32, 33, 64, 256, 257, 300}) {
    const Shape shape{{KvDType::kF32, 1, 16}, 1, window};
    std::vector<SequenceData> data;
    data.push_back(random_sequence(shape, 600, 51));
    std::fill_n(data[0].k.data(), 600 * 16, 0.0f);
    for (int64_t p = 0; p < 600; ++p) {
      std::fill_n(data[0].v.row(p), 16, static_cast<float>(p));
    }
    const auto outs = run(shape, engine, data, one_step(data), 1);
    for (int64_t p = 0; p < 600; ++p) {
      const auto first = static_cast<double>(window > 0 ? std::max<int64_t>(0, p - window + 1) : 0);
      ASSERT_NEAR(outs[0].row(p)[3], (first + static_cast<double>(p)) / 2, 1e-3) << window;
    }
  }
}

TEST(CpuAttention, HugeScoresPickOneToken) {
  for (const KvDType dtype : {KvDType::kInt8, KvDType::kBF16, KvDType::kF32}) {
    Engine engine(2, best_isa());
    const Shape shape{{dtype, 1, 64}, 3, 0};
    std::vector<SequenceData> data;
    data.push_back(random_sequence(shape, 500, 61));
    std::fill_n(data[0].q.data(), data[0].q.rows() * data[0].q.columns(), 100.0f);
    std::fill_n(data[0].k.row(77), 64, 200.0f);
    const Operators ops = engine.operators();
    const Cache cache(shape, ops, data, 1);
    const auto outs = run_steps(shape, ops, data, cache, one_step(data));
    const HeadCache held = read_head(ops, cache, 0, 500, 0);
    for (int64_t p = 77; p < 500; ++p) {
      for (int i = 0; i < 64; ++i) {
        ASSERT_NEAR(outs[0].row(p)[i], held.v.row(77)[i], 1e-5) << "position " << p;
      }
    }
  }
}

TEST(CpuAttention, ShowsWhatIsNotANumberToTheRowsThatSeeItAlone) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInf = std::numeric_limits<float>::infinity();
  for (const Isa isa : isas()) {
    for (const KvDType dtype : {KvDType::kInt8, KvDType::kBF16, KvDType::kF32}) {
      const Shape shape{{dtype, 1, 16}, 1, 0};
      for (const float bad : {kNan, -kNan, kInf}) {
        for (const int where : {0, 1, 2}) {
          Engine engine(2, isa);
          std::vector<SequenceData> data;
          data.push_back(random_sequence(shape, 300, 71));
          const FloatMatrix& target = where == 0 ? data[0].q : where == 1 ? data[0].k : data[0].v;
          target.row(270)[3] = bad;
          const auto outs = run(shape, engine, data, one_step(data), 1);
          for (int64_t p = 0; p < 300; ++p) {
            const bool sees = where == 0 ? p == 270 : p >= 270;
            const float x = outs[0].row(p)[3];
            if (!sees) {
              ASSERT_TRUE(std::isfinite(x)) << isa_name(isa) << " " << where << " " << p;
            } else if (std::isnan(bad)) {
              ASSERT_TRUE(std::isnan(x)) << isa_name(isa) << " " << where << " " << p;
            }
          }
          // An infinite value stays infinite or is no number; an infinite score may win outright.
          if (where == 2) {
            EXPECT_FALSE(std::isfinite(outs[0].row(270)[3]));
          }
        }
      }
    }
  }
}

TEST(CpuAttention, AllocatesNothingWhenAStepComesAgain) {
  Engine engine(2, best_isa());
  const Shape shape{{KvDType::kInt8, 2, 64}, 4, 0};
  std::vector<SequenceData> data;
  data.push_back(random_sequence(shape, 600, 81));
  const std::vector<Step> steps = {{{0, 590}}, {{0, 9}}, {{0, 1}}};
  run(shape, engine, data, steps, 1);
  const AttentionScratch& scratch = engine.scratch;
  const auto places = [&] {
    return std::vector<const void*>{scratch.items.data(), scratch.splits.data(),
                                    scratch.workers.data(), scratch.partials.data()};
  };
  const std::vector<const void*> before = places();
  run(shape, engine, data, steps, 2);
  EXPECT_EQ(places(), before);
}

TEST(CpuAttention, BlocksAreMultiplesOfACacheLine) {
  for (const Shape& shape : shapes()) EXPECT_EQ(kv_block_bytes(shape.layout) % 64, 0u);
  // 64 + 64 codes, 2 + 1 scales a token.
  EXPECT_EQ(kv_block_bytes({KvDType::kInt8, 3, 64}), size_t{3 * 32 * (128 + 12)});
}

}  // namespace
}  // namespace quern::cpu
