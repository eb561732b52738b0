// Ends a stream of text before the first of its stop strings, none of which is ever let out, not
// even in part.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace quern {

// The text ends at the stop string whose last byte comes first; of several that end there, at the
// longest. How the text was cut into pieces makes no difference.
class StopMatcher {
 public:
  // Borrows the strings, none of which is empty.
  explicit StopMatcher(std::span<const std::string> stops) : stops_(stops) {}

  // Takes the next piece, returns the text that no stop string can reach any more. Once stopped()
  // returns nothing more.
  std::string push(std::string_view piece);

  // What was held back, when the text ends for another reason.
  std::string finish();

  // The stop string that was found; empty as long as there is none.
  std::string_view stopped() const { return found_; }

 private:
  std::span<const std::string> stops_;
  std::string held_;  // the longest end of the text that begins a stop string
  std::string_view found_;
};

}  // namespace quern
