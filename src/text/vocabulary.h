// The strings of a vocabulary: id to string and back, in two flat arrays.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace quern {

inline constexpr int32_t kMaxVocabularyIds = 1 << 22;  // 16 times the largest vocabulary published
inline constexpr size_t kMaxTokenBytes = size_t{64} << 10;

// Ids may have holes. Build with add(), then call index() once; any thread may read after that.
class Vocabulary {
 public:
  // `capacity` is a hint. The id is stored with its string; the order of calls does not matter.
  // Errors: kInvalidArgument for an id outside [0, kMaxVocabularyIds), one that was given before,
  // or a string longer than kMaxTokenBytes.
  Result<Unit> add(int64_t id, std::string_view token);

  // Builds the index from strings to ids. Of equal strings the lowest id wins.
  void index();

  // One more than the largest id.
  int32_t size() const { return static_cast<int32_t>(entries_.size()); }

  bool has(int32_t id) const { return id >= 0 && id < size() && entries_[index_of(id)].present; }

  // Empty for a hole or an id outside.
  std::string_view token(int32_t id) const;

  // Requires index().
  std::optional<int32_t> find(std::string_view token) const;

 private:
  struct Entry {
    uint64_t offset = 0;
    uint32_t bytes = 0;
    bool present = false;
  };

  static size_t index_of(int32_t id) { return static_cast<size_t>(id); }

  std::string text_;
  std::vector<Entry> entries_;
  std::vector<int32_t> slots_;  // open addressing, a power of two; -1 is free
};

}  // namespace quern
