// The assumptions behind a measured figure.
#pragma once

#include <string>

#include "cli/session.h"
#include "cli/speed.h"
#include "money/cost.h"

namespace quern {

// "AMD EPYC 9R14, 2 threads, cpu/avx512vnni": the processor by its own name.
std::string hardware_name(Backend& backend);

// Model, precision, cache, hardware, batch, lengths and basis of a measured point; the price is
// added by add_cost_disclosure().
Disclosure measured_disclosure(const std::string& model,
                               const RunOptions& run,
                               Backend& backend,
                               const SpeedOptions& speed);

}  // namespace quern
