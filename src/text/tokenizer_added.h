// Added tokens: strings that become their ids before the model sees the text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/function_ref.h"

namespace quern {

inline constexpr size_t kMaxAddedTokenBytes = 1024;  // bounds the time of a search

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool special = false;
  bool single_word = false;  // only where no word character stands beside it
  bool lstrip = false;       // takes the white space before it along
  bool rstrip = false;       // takes the white space behind it along
  bool normalized = false;   // is sought, in its normalised form, in normalised text
};

// Finds added tokens in text, leftmost and longest first. Immutable after the last add().
class AddedTokenMatcher {
 public:
  // `index` is the caller's name for the token; `content` what is sought, not empty.
  void add(int32_t index, std::string_view content);

  struct Match {
    int32_t index;
    size_t begin, end;
  };

  // The leftmost match at or behind `from` that `allowed` accepts, the longest of those; index -1
  // when there is none.
  Match find(std::string_view text,
             size_t from,
             FunctionRef<bool(int32_t index, size_t begin, size_t end)> allowed) const;

  bool empty() const { return nodes_.size() == 1; }

 private:
  struct Node {
    int32_t index = -1;
  };

  std::vector<Node> nodes_{1};
  std::unordered_map<uint64_t, uint32_t> edges_;  // node << 8 | byte -> node
  bool starts_[256] = {};                         // bytes that some token begins with
};

}  // namespace quern
