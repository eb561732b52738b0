// Attention over the cache at the shapes of two real models: decode by batch and context, and a
// prompt of 512 tokens. Decode goes through copies of the cache in turn, as it does through the
// layers of a model, so that they come from memory. `attention_bench [THREADS]`.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "base/clock.h"
#include "base/random.h"
#include "kernels/cpu/attention.h"

namespace quern {
namespace {

struct BenchShape {
  const char* name;
  int heads;
  int kv_heads;
  int head_dim;
};

struct Workload {
  int64_t batch;
  int64_t context;  // positions in the cache, those of this step included
  int64_t rows;     // of each sequence in this step
};

FloatMatrix random_matrix(int64_t rows, int64_t columns, uint64_t seed) {
  FloatMatrix m(rows, columns);
  for (int64_t i = 0; i < rows * columns; ++i) {
    m.data()[i] = static_cast<float>(4 * random_uniform(seed, 0, static_cast<uint64_t>(i)) - 2);
  }
  return m;
}

// Sequences that lie in one cache and what their step reads.
struct Bench {
  Bench(const BenchShape& shape, KvDType dtype, const Workload& work);

  BenchShape shape;
  Workload work;
  std::vector<std::vector<int32_t>> tables;
  std::vector<SequenceSpan> spans;
  std::vector<Buffer> memory;
  std::vector<KvLayer> layers;
  KvLayout layout;
};

// What decode goes through before it meets the same layer again.
constexpr size_t kWorkingSet = size_t{192} << 20;

Bench::Bench(const BenchShape& shape_in, KvDType dtype, const Workload& work_in)
    : shape(shape_in), work(work_in), tables(static_cast<size_t>(work_in.batch)) {
  layout = {dtype, shape.kv_heads, shape.head_dim};
  const size_t block_bytes = cpu::kv_block_bytes(layout);
  const int64_t blocks = (work.context + kKvBlockTokens - 1) / kKvBlockTokens;
  const size_t bytes = block_bytes * static_cast<size_t>(blocks * work.batch);
  const size_t copies = work.rows > 1 ? 1 : 1 + kWorkingSet / bytes;
  for (size_t i = 0; i < copies; ++i) {
    memory.emplace_back(bytes);
    layers.push_back({memory.back().data(), block_bytes, layout});
  }
  for (int64_t i = 0; i < work.batch; ++i) {
    auto& table = tables[static_cast<size_t>(i)];
    for (int64_t b = 0; b < blocks; ++b) table.push_back(static_cast<int32_t>(b * work.batch + i));
    spans.push_back({i * work.rows, work.rows, work.context - work.rows, table});
  }
}

void fill_cache(const Bench& bench, ThreadPool& pool, cpu::Isa isa) {
  const FloatMatrix x =
      random_matrix(bench.work.context, bench.shape.kv_heads * bench.shape.head_dim, 1);
  const Tensor kv(x.data(), DType::kF32,
                  {bench.work.context, bench.shape.kv_heads, bench.shape.head_dim});
  for (const auto& table : bench.tables) {
    const SequenceSpan all{0, bench.work.context, 0, table};
    cpu::store_kv(pool, isa, bench.layers[0], kv, kv, {&all, 1});
  }
  for (size_t i = 1; i < bench.memory.size(); ++i)
    std::memcpy(bench.memory[i].data(), bench.memory[0].data(), bench.memory[0].bytes());
}

void report(const Bench& bench, ThreadPool& pool, cpu::Isa isa) {
  fill_cache(bench, pool, isa);
  const int64_t rows = bench.work.batch * bench.work.rows;
  const FloatMatrix q = random_matrix(rows, bench.shape.heads * bench.shape.head_dim, 2);
  const FloatMatrix out(rows, q.columns());
  const Tensor q_heads(q.data(), DType::kF32, {rows, bench.shape.heads, bench.shape.head_dim});
  const Tensor out_heads(out.data(), DType::kF32, {rows, bench.shape.heads, bench.shape.head_dim});
  const AttentionParams params{bench.shape.heads,
                               1 / std::sqrt(static_cast<float>(bench.shape.head_dim)), 0};
  cpu::AttentionScratch scratch;
  const SteadyClock clock;
  double best = 1e9, spent = 0;
  const auto copies = static_cast<double>(bench.layers.size());
  for (int round = 0; round < 200 && (round < 3 || spent < 0.15); ++round) {
    const double begin = clock.now_seconds();
    for (const KvLayer& layer : bench.layers)
      cpu::attention(pool, isa, scratch, out_heads, q_heads, layer, bench.spans, params);
    const double seconds = (clock.now_seconds() - begin) / copies;
    spent += seconds * copies;
    best = std::min(best, seconds);
  }
  const double seen = static_cast<double>(bench.work.context) -
                      static_cast<double>(bench.work.rows - 1) / 2;  // on average
  const double operations = 4.0 * static_cast<double>(rows * q.columns()) * seen;
  const double bytes = static_cast<double>(bench.memory[0].bytes());
  std::printf("%-12s %-10.*s batch %2d context %4d rows %3d  %9.1f us  %6.1f GB/s  %6.1f GOPS\n",
              bench.shape.name, static_cast<int>(cpu::isa_name(isa).size()),
              cpu::isa_name(isa).data(), static_cast<int>(bench.work.batch),
              static_cast<int>(bench.work.context), static_cast<int>(bench.work.rows), best * 1e6,
              bytes / best * 1e-9, operations / best * 1e-9);
}

}  // namespace
}  // namespace quern

int main(int argc, char** argv) {
  using namespace quern;
  ThreadPool pool(argc > 1 ? std::atoi(argv[1]) : ThreadPool::available_threads());
  const BenchShape shapes[] = {{"9h 3kv 64", 9, 3, 64}, {"12h 2kv 128", 12, 2, 128}};
  const Workload works[] = {{1, 512, 1},  {1, 4096, 1},  {8, 512, 1},  {8, 4096, 1},
                            {32, 512, 1}, {32, 4096, 1}, {1, 512, 512}};
  for (const KvDType dtype : {KvDType::kInt8, KvDType::kBF16}) {
    std::printf("%s cache, %d threads\n", dtype == KvDType::kInt8 ? "int8" : "bf16", pool.size());
    for (const BenchShape& shape : shapes) {
      for (const Workload& work : works) report(Bench(shape, dtype, work), pool, cpu::best_isa());
    }
  }
  std::printf("int8 cache by instruction set\n");
  for (int i = 0; i < cpu::kIsaCount; ++i) {
    const auto isa = static_cast<cpu::Isa>(i);
    if (!cpu::isa_supported(isa)) continue;
    for (const BenchShape& shape : shapes) {
      report(Bench(shape, KvDType::kInt8, {8, 512, 1}), pool, isa);
      report(Bench(shape, KvDType::kInt8, {1, 512, 512}), pool, isa);
    }
  }
}
