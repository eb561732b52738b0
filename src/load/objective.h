// A service level objective: the latencies within which a request counts as good.
#pragma once

#include <optional>
#include <string>

#include "base/result.h"

namespace quern {

struct Objective {
  std::optional<double> ttft_ms{}, tpot_ms{}, e2e_ms{};

  bool empty() const { return !ttft_ms && !tpot_ms && !e2e_ms; }
};

// "ttft=500ms,tpot=50ms,e2e=10s", any of the three once. Errors: kInvalidArgument naming the part.
Result<Objective> parse_objective(const std::string& text);

}  // namespace quern
