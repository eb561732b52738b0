#include "load/objective.h"

#include <algorithm>

#include <fmt/format.h>

#include "load/numbers.h"

namespace quern {

Result<Objective> parse_objective(const std::string& text) {
  Objective objective;
  for (size_t at = 0; at <= text.size();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    const std::string part = text.substr(at, comma - at);
    const size_t equals = std::min(part.find('='), part.size());
    const std::string name = part.substr(0, equals);
    std::optional<double>* limit = name == "ttft"                    ? &objective.ttft_ms
                                   : name == "tpot"                  ? &objective.tpot_ms
                                   : name == "e2e" || name == "e2el" ? &objective.e2e_ms
                                                                     : nullptr;
    const std::optional<double> value =
        equals < part.size() ? read_duration_ms(part.substr(equals + 1)) : std::nullopt;
    if (limit == nullptr || !value || limit->has_value()) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("--slo has \"{}\"; expected ttft, tpot and e2e, each at most once "
                               "with a time in us, ms or s, such as ttft=500ms,tpot=50ms",
                               part)};
    }
    *limit = value;
    at = comma + 1;
  }
  return objective;
}

}  // namespace quern
