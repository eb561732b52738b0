// The picture of a run: how latencies are distributed, and the throughput over its time.
#pragma once

#include <string>
#include <vector>

#include "load/report.h"
#include "load/runner.h"

namespace quern {

// One SVG file; `notes` stand under its title.
std::string load_plot(const RunResult& result,
                      const RunReport& report,
                      const std::vector<std::string>& notes);

}  // namespace quern
