// What the tests and the fuzzer of the output parser share: whole answers, normalised.
#pragma once

#include <string_view>
#include <vector>

#include "text/output_parser.h"

namespace quern {

// Appends, joining neighbours of one kind and call.
inline void join_deltas(std::vector<OutputDelta>& all, std::vector<OutputDelta> more) {
  for (OutputDelta& delta : more) {
    const bool joins = !all.empty() && delta.kind != OutputKind::kToolBegin &&
                       all.back().kind == delta.kind && all.back().index == delta.index;
    if (joins) {
      all.back().text += delta.text;
    } else {
      all.push_back(std::move(delta));
    }
  }
}

// The answer fed in pieces.
inline std::vector<OutputDelta> parse_pieces(OutputDialect dialect,
                                             const std::vector<std::string_view>& pieces) {
  OutputParser parser(dialect);
  std::vector<OutputDelta> all;
  for (const std::string_view piece : pieces) join_deltas(all, parser.feed(piece));
  join_deltas(all, parser.finish());
  return all;
}

}  // namespace quern
