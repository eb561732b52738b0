#include "cli/disclosure.h"

#include <fstream>

#include <fmt/format.h>

namespace quern {
namespace {

std::string processor_name() {
  std::ifstream info("/proc/cpuinfo");
  std::string line;
  while (std::getline(info, line)) {
    const size_t colon = line.find(':');
    if (line.starts_with("model name") && colon != std::string::npos) {
      return line.substr(line.find_first_not_of(" \t", colon + 1));
    }
  }
  return "unknown processor";
}

std::string precision_text(const RunOptions& run) {
  if (run.precision == "fast") return "weights as stored, int8 activations for grouped weights";
  return fmt::format("weights widened to {}, float32 activations", run.precision);
}

}  // namespace

std::string hardware_name(Backend& backend) {
  return fmt::format("{}, {} threads, {}", processor_name(), backend.pool().size(), backend.name());
}

Disclosure measured_disclosure(const std::string& model,
                               const RunOptions& run,
                               Backend& backend,
                               const SpeedOptions& speed) {
  return {{"model", model},
          {"precision", precision_text(run)},
          {"kv_cache", kv_dtype_name(kv_dtype(run))},
          {"hardware", hardware_name(backend)},
          {"batch", std::to_string(speed.batch)},
          {"input_tokens", std::to_string(speed.prefill_tokens)},
          {"output_tokens", std::to_string(speed.decode_tokens)},
          {"prefix_cache", "none: every prompt token is computed"},
          {"speculation", "none"},
          {"arrivals", "all at once, synthetic prompts of random tokens, fixed lengths"},
          {"throughput_basis", fmt::format("measured, best of {}", speed.repeat)},
          {"engine", "quern " QUERN_VERSION}};
}

}  // namespace quern
