#include "kernels/limits.h"

#include <algorithm>
#include <atomic>

#include "base/check.h"
#include "base/function_ref.h"
#include "kernels/cpu/limit_ops.h"
#include "tensor/buffer.h"

namespace quern {

namespace cpu {
extern const LimitOps kLimitsScalar, kLimitsNeon, kLimitsI8mm, kLimitsAvx2, kLimitsAvxVnni,
    kLimitsAvx512, kLimitsAvx512Vnni, kLimitsAmx;
const IsaTables<LimitOps> kLimitOps = isa_tables<LimitOps>({
    {Isa::kScalar, &kLimitsScalar},
    {Isa::kNeon, QUERN_ARM_TABLE(kLimitsNeon)},
    {Isa::kI8mm, QUERN_ARM_TABLE(kLimitsI8mm)},
    {Isa::kAvx2, QUERN_X86_TABLE(kLimitsAvx2)},
    {Isa::kAvxVnni, QUERN_X86_TABLE(kLimitsAvxVnni)},
    {Isa::kAvx512, QUERN_X86_TABLE(kLimitsAvx512)},
    {Isa::kAvx512Vnni, QUERN_X86_TABLE(kLimitsAvx512Vnni)},
    {Isa::kAmx, QUERN_X86_TABLE(kLimitsAmx)},
});
}  // namespace cpu

namespace {

constexpr int kReadRuns = 3;
constexpr int kProductRuns = 5;
constexpr int64_t kProductRounds = 400'000;  // x 16 sums x about 1 cycle = 2 ms
constexpr int kDispatches = 2000;
constexpr size_t kReadBytes = size_t{1} << 28;  // read for one figure of a working set

// Nanoseconds of the fastest of `runs` calls of body.
double fastest_ns(const Clock& clock, int runs, FunctionRef<void()> body) {
  int64_t best = INT64_MAX;
  for (int i = 0; i < runs; ++i) {
    const int64_t begin = clock.now_ns();
    body();
    best = std::min(best, clock.now_ns() - begin);
  }
  return static_cast<double>(std::max<int64_t>(best, 1));
}

class Meter {
 public:
  Meter(ThreadPool& pool, const Clock& clock)
      : pool_(pool),
        clock_(clock),
        isa_(cpu::best_isa()),
        ops_(cpu::table_for(cpu::kLimitOps, isa_)) {}

  cpu::Isa isa() const { return isa_; }

  // GB/s of `threads` workers that each read their own part of the buffer `passes` times.
  double read(const Buffer& buffer, int threads, int runs, size_t passes) const {
    const size_t part =
        buffer.bytes() / static_cast<size_t>(threads) / cpu::kReadStep * cpu::kReadStep;
    const double ns = fastest_ns(clock_, runs, [&] {
      on_workers(threads, [&](int worker) {
        int64_t sum = 0;
        for (size_t pass = 0; pass < passes; ++pass)
          sum |= ops_.read(buffer.data() + static_cast<size_t>(worker) * part, part);
        keep_.fetch_or(sum, std::memory_order_relaxed);
      });
    });
    return static_cast<double>(part * static_cast<size_t>(threads) * passes) / ns;
  }

  double int8(int threads) const {
    const double ns = fastest_ns(clock_, kProductRuns, [&] {
      on_workers(threads, [&](int) { keep_.fetch_or(ops_.int8_products(kProductRounds)); });
    });
    return static_cast<double>(ops_.int8_operations * kProductRounds * threads) / ns;
  }

  double f32(int threads) const {
    const double ns = fastest_ns(clock_, kProductRuns, [&] {
      on_workers(threads, [&](int) {
        keep_.fetch_or(static_cast<int64_t>(ops_.f32_products(kProductRounds)));
      });
    });
    return static_cast<double>(ops_.f32_operations * kProductRounds * threads) / ns;
  }

  double dispatch_ns() const {
    const double ns = fastest_ns(clock_, kReadRuns, [&] {
      for (int i = 0; i < kDispatches; ++i) pool_.run([](int) {});
    });
    return ns / kDispatches;
  }

 private:
  void on_workers(int threads, FunctionRef<void(int)> body) const {
    pool_.run([&](int worker) {
      if (worker < threads) body(worker);
    });
  }

  ThreadPool& pool_;
  const Clock& clock_;
  cpu::Isa isa_;
  const cpu::LimitOps& ops_;
  mutable std::atomic<int64_t> keep_{0};
};

// Pages that were never written all map to one page of zeros.
Buffer touched(ThreadPool& pool, size_t bytes) {
  constexpr size_t kPage = 4096;
  Buffer buffer(bytes);
  const auto pages = static_cast<int64_t>(bytes / kPage);
  pool.for_each_chunk(pages, 512, [&](int64_t begin, int64_t end, int) {
    for (int64_t page = begin; page < end; ++page)
      buffer.data()[static_cast<size_t>(page) * kPage] = std::byte{1};
  });
  return buffer;
}

}  // namespace

MachineLimits measure_limits(ThreadPool& pool, const Clock& clock) {
  const Meter meter(pool, clock);
  MachineLimits limits;
  limits.threads = pool.size();
  limits.isa = cpu::isa_name(meter.isa());
  {
    const Buffer buffer = touched(pool, kLimitsBytes);
    limits.read_gb_per_s_one = meter.read(buffer, 1, kReadRuns, 1);
    limits.read_gb_per_s = meter.read(buffer, pool.size(), kReadRuns, 1);
  }
  limits.int8_gops_one = meter.int8(1);
  limits.int8_gops = meter.int8(pool.size());
  limits.f32_gflops_one = meter.f32(1);
  limits.f32_gflops = meter.f32(pool.size());
  limits.dispatch_ns = meter.dispatch_ns();
  return limits;
}

double measure_read_gb_per_s(ThreadPool& pool, const Clock& clock, size_t working_set_bytes) {
  QUERN_CHECK(working_set_bytes >= cpu::kReadStep * static_cast<size_t>(pool.size()));
  const Meter meter(pool, clock);
  const Buffer buffer = touched(pool, working_set_bytes);
  const size_t passes = std::max<size_t>(1, kReadBytes / working_set_bytes);
  return meter.read(buffer, pool.size(), kReadRuns, passes);
}

}  // namespace quern
