// Times linear() and gemm_f32() beside the limits measured in the same run:
//   kernels_bench [--threads N] [--isa NAME] [--tokens 1,8,64,512] [--seconds S]
//                 [--working-set-mb MB] [NAME PART...]
// runs the cases of kernels/cases.h whose names hold one of the parts (all without any).
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "base/clock.h"
#include "kernels/backend.h"
#include "kernels/cases.h"
#include "kernels/dense.h"
#include "kernels/limits.h"
#include "kernels/test_weights.h"

namespace quern {
namespace {

constexpr size_t kMaxCopies = 512;

struct Options {
  int threads = 0;
  std::string isa;
  std::vector<int64_t> tokens = {1, 8, 32, 512};
  double seconds = 0.3;
  int64_t working_set_mb = 96;
  std::vector<std::string> parts;

  bool wants(std::string_view name) const {
    return parts.empty() || std::any_of(parts.begin(), parts.end(), [&](const std::string& part) {
             return name.find(part) != std::string_view::npos;
           });
  }
};

struct Timing {
  double best = 1e30;  // seconds
  double mean = 0;
};

template <typename Body>
Timing time_calls(const Clock& clock, double seconds, Body body) {
  Timing timing;
  body(0);
  const double begin = clock.now_seconds();
  double now = begin;
  size_t calls = 0;
  while (now - begin < seconds || calls < 3) {
    body(++calls);
    const double after = clock.now_seconds();
    timing.best = std::min(timing.best, after - now);
    now = after;
  }
  timing.mean = (now - begin) / static_cast<double>(calls);
  return timing;
}

void bench_linear(Backend& backend,
                  const MachineLimits& limits,
                  const LinearCase& shape,
                  const Options& options) {
  const SteadyClock clock;
  const Weight weight = random_weight(shape, 1);
  const Weight* part = &weight;
  std::vector<std::unique_ptr<PackedWeight>> copies;
  const size_t working_set = static_cast<size_t>(options.working_set_mb) << 20;
  size_t bytes = 0;
  do {
    copies.push_back(backend.pack({&part, 1}, {}, Precision::kFast));
    bytes += copies.back()->bytes();
  } while (bytes < working_set && copies.size() < kMaxCopies);
  for (const int64_t tokens : options.tokens) {
    const FloatMatrix x = random_matrix(tokens, shape.columns, 2);
    FloatMatrix out(tokens, shape.rows);
    const Timing timing = time_calls(clock, options.seconds, [&](size_t call) {
      backend.linear(out.tensor(), x.tensor(), *copies[call % copies.size()]);
    });
    const double gigabytes = static_cast<double>(copies[0]->bytes()) / timing.best * 1e-9;
    const double gops =
        2.0 * static_cast<double>(tokens * shape.rows * shape.columns) / timing.best * 1e-9;
    const double peak = shape.group_size > 0 ? limits.int8_gops : limits.f32_gflops;
    fmt::print("{:26} {:5} {:10.1f} {:10.1f} {:8.1f} {:5.0f}% {:9.0f} {:5.0f}%\n", shape.name,
               tokens, timing.best * 1e6, timing.mean * 1e6, gigabytes,
               100 * gigabytes / limits.read_gb_per_s, gops, 100 * gops / peak);
  }
}

void print_gemm(std::string_view name, const Timing& timing, double flops, double peak) {
  fmt::print("{:26} {:5} {:10.1f} {:10.1f} {:8} {:6} {:9.0f} {:5.0f}%\n", name, "",
             timing.best * 1e6, timing.mean * 1e6, "", "", flops / timing.best * 1e-9,
             100 * flops / timing.best * 1e-9 / peak);
}

void bench_dense(ThreadPool& pool, const MachineLimits& limits, const Options& options) {
  const SteadyClock clock;
  for (const int64_t n : {256, 1536}) {
    const std::string name = fmt::format("gemm_f32 {0}x{0}x{0}", n);
    if (!options.wants(name)) continue;
    const FloatMatrix a = random_matrix(n, n, 1);
    FloatMatrix c(n, n);
    const Timing timing = time_calls(clock, options.seconds, [&](size_t) {
      gemm_f32(pool, c.tensor(), a.tensor(), a.tensor(), {});
    });
    print_gemm(name, timing, 2.0 * static_cast<double>(n * n * n), limits.f32_gflops);
  }
  for (const auto& [width, operands] :
       {std::pair{1536, Operands::kFloat32}, std::pair{4096, Operands::kFloat32},
        std::pair{1536, Operands::kBF16}, std::pair{4096, Operands::kBF16}}) {
    const std::string name =
        fmt::format("gram 2048x{}{}", width, operands == Operands::kBF16 ? ", bf16" : "");
    if (!options.wants(name)) continue;
    const FloatMatrix x = random_matrix(2048, width, 1);
    FloatMatrix gram(width, width);
    const GemmParams params{
        .a = Transpose::kYes, .beta = 1.0f, .triangle = Triangle::kUpper, .operands = operands};
    const Timing timing = time_calls(clock, options.seconds, [&](size_t) {
      gemm_f32(pool, gram.tensor(), x.tensor(), x.tensor(), params);
    });
    print_gemm(name, timing, 2048.0 * static_cast<double>(width * width), limits.f32_gflops);
  }
}

int run(const Options& options) {
  auto made = make_backend({.name = "cpu", .threads = options.threads, .isa = options.isa});
  if (!made.has_value()) {
    fmt::print(stderr, "{}\n", made.error().message);
    return 2;
  }
  Backend& backend = **made;
  const SteadyClock clock;
  const MachineLimits limits = measure_limits(backend.pool(), clock);
  fmt::print(
      "{}, {} threads; limits: read {:.1f} GB/s (one thread {:.1f}), int8 {:.0f} GOPS "
      "({:.0f}), f32 {:.0f} GFLOPS ({:.0f}), dispatch {:.0f} ns\n",
      backend.name(), limits.threads, limits.read_gb_per_s, limits.read_gb_per_s_one,
      limits.int8_gops, limits.int8_gops_one, limits.f32_gflops, limits.f32_gflops_one,
      limits.dispatch_ns);
  fmt::print("{:26} {:>5} {:>10} {:>10} {:>8} {:>6} {:>9} {:>6}\n", "case", "rows", "best us",
             "mean us", "GB/s", "", "GOPS", "");
  for (const LinearCase& shape : kModelCases) {
    if (options.wants(shape.name)) bench_linear(backend, limits, shape, options);
  }
  bench_dense(backend.pool(), limits, options);
  return 0;
}

}  // namespace
}  // namespace quern

int main(int argc, char** argv) {
  quern::Options options;
  CLI::App app("Times matrix kernels beside the limits of the machine");
  app.add_option("--threads", options.threads, "0: every core");
  app.add_option("--isa", options.isa, "default: the best");
  app.add_option("--tokens", options.tokens, "rows of activations")
      ->delimiter(',')
      ->allow_extra_args(false);
  app.add_option("--seconds", options.seconds, "for each line");
  app.add_option("--working-set-mb", options.working_set_mb,
                 "copies of the weights are cycled through, as the layers of a model are");
  app.add_option("parts", options.parts, "parts of the names of cases");
  CLI11_PARSE(app, argc, argv);
  return quern::run(options);
}
