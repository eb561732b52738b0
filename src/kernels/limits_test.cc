#include "kernels/limits.h"

#include <gtest/gtest.h>

#include "kernels/cpu/limit_ops.h"
#include "kernels/cpu/tile_trap.h"
#include "tensor/buffer.h"

namespace quern {
namespace {

TEST(Limits, ReportsEveryFigure) {
  ThreadPool pool(2);
  const SteadyClock clock;
  const MachineLimits limits = measure_limits(pool, clock);
  EXPECT_EQ(limits.threads, 2);
  EXPECT_EQ(limits.isa, cpu::isa_name(cpu::best_isa()));
  for (const double figure :
       {limits.read_gb_per_s_one, limits.read_gb_per_s, limits.int8_gops_one, limits.int8_gops,
        limits.f32_gflops_one, limits.f32_gflops, limits.dispatch_ns}) {
    EXPECT_GT(figure, 0);
  }
}

TEST(Limits, MeasuresASmallWorkingSet) {
  ThreadPool pool(2);
  const SteadyClock clock;
  EXPECT_GT(measure_read_gb_per_s(pool, clock, size_t{1} << 20), 0);
}

TEST(Limits, EveryInstructionSetReadsEveryByte) {
  for (int i = 0; i < cpu::kIsaCount; ++i) {
    const auto isa = static_cast<cpu::Isa>(i);
    if (!cpu::isa_supported(isa)) continue;
    const auto& ops = cpu::table_for(cpu::kLimitOps, isa);
    for (size_t at = 0; at < cpu::kReadStep; at += 97) {
      const Buffer buffer(cpu::kReadStep);
      EXPECT_EQ(ops.read(buffer.data(), buffer.bytes()), 0);
      buffer.data()[at] = std::byte{0xff};
      const bool seen = ops.read(buffer.data(), buffer.bytes()) != 0;
      EXPECT_TRUE(seen) << cpu::isa_name(isa) << " " << at;
    }
    EXPECT_EQ(ops.int8_products(3), 0);
    EXPECT_GT(ops.f32_products(3), 0);
  }
}

#if defined(__x86_64__)
// Where the machine has no tiles their instructions are emulated.
TEST(Limits, TheLoopOnTilesDoesWhatItCounts) {
  if (!cpu::isa_supported(cpu::Isa::kAvx512Vnni)) GTEST_SKIP();
  const bool native = cpu::isa_supported(cpu::Isa::kAmx);
  const cpu::TileTrap trap;
  const auto& ops = cpu::table_for(cpu::kLimitOps, cpu::Isa::kAmx);
  const int64_t before = cpu::TileTrap::count();
  EXPECT_EQ(ops.int8_products(3), 0);
  EXPECT_EQ(ops.int8_operations, 4 * 2 * 16 * 16 * 64);
  if (native) return;
  // Configured, 6 tiles zeroed, 3 x 4 products, one tile stored, released.
  EXPECT_EQ(cpu::TileTrap::count() - before, 1 + 6 + 3 * 4 + 1 + 1);
}
#endif

}  // namespace
}  // namespace quern
