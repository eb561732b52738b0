#include "kernels/backend.h"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/ref/ref_backend.h"

namespace quern {
namespace {

constexpr std::array<std::string_view, 2> kBackends = {"cpu", "ref"};
constexpr int kMaxThreads = 1024;

Result<cpu::Isa> choose_isa(std::string_view name) {
  if (name.empty()) return cpu::best_isa();
  const std::optional<cpu::Isa> isa = cpu::isa_from_name(name);
  if (!isa.has_value()) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("unknown instruction set \"{}\": known are {}", name,
                             fmt::join(cpu::kIsaNames, ", "))};
  }
  if (!cpu::isa_supported(*isa)) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("this machine does not run {}: its best is {}", name,
                             cpu::isa_name(cpu::best_isa()))};
  }
  return *isa;
}

}  // namespace

Result<std::unique_ptr<Backend>> make_backend(const BackendOptions& options) {
  if (options.threads < 0 || options.threads > kMaxThreads) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("threads is {}: 0 (every core) to {} are possible", options.threads,
                             kMaxThreads)};
  }
  const int threads = options.threads > 0 ? options.threads : ThreadPool::available_threads();
  if (options.name == "ref")
    return std::unique_ptr<Backend>(std::make_unique<ref::RefBackend>(threads));
  if (options.name == "cpu") {
    const cpu::Isa isa = QUERN_TRY(choose_isa(options.isa));
    return std::unique_ptr<Backend>(std::make_unique<cpu::CpuBackend>(threads, isa));
  }
  return Error{ErrorCode::kInvalidArgument, fmt::format("unknown backend \"{}\": known are {}",
                                                        options.name, fmt::join(kBackends, ", "))};
}

std::span<const std::string_view> cpu_isas() { return cpu::kIsaNames; }

bool cpu_supports(std::string_view isa) {
  const std::optional<cpu::Isa> known = cpu::isa_from_name(isa);
  return known.has_value() && cpu::isa_supported(*known);
}

}  // namespace quern
