// The tables of `quern load`.
#pragma once

#include <string>

#include "load/report.h"

namespace quern {

// What people read of a run, with the objective's line where one was set.
std::string load_tables(const RunReport& report, const Objective& objective);

}  // namespace quern
