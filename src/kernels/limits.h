// The limits of this machine, measured on the spot: what a benchmark's share is a share of.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/clock.h"
#include "base/thread_pool.h"

namespace quern {

struct MachineLimits {
  int threads = 0;               // those of the pool
  std::string_view isa;          // instruction set of the arithmetic limits
  double read_gb_per_s_one = 0;  // sequential reads of memory far larger than a cache, one thread
  double read_gb_per_s = 0;      // the same, all threads
  double int8_gops_one = 0;      // int8 products of the best instruction, 2 operations each
  double int8_gops = 0;
  double f32_gflops_one = 0;  // float32 FMA, 2 operations each
  double f32_gflops = 0;
  double dispatch_ns = 0;  // one empty round of the pool: start and barrier
};

// Takes about a second and allocates kLimitsBytes for that time. Best of several runs: on a shared
// machine a limit is what was reached at least once.
MachineLimits measure_limits(ThreadPool& pool, const Clock& clock);

// Read bandwidth in GB/s of a working set that all threads share and read again and again.
double measure_read_gb_per_s(ThreadPool& pool, const Clock& clock, size_t working_set_bytes);

inline constexpr size_t kLimitsBytes = size_t{512} << 20;

}  // namespace quern
