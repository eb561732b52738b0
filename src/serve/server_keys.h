// The keys that clients present, kept as hashes and compared in constant time.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace quern {

inline constexpr size_t kMinApiKeyBytes = 16;
inline constexpr size_t kMaxApiKeyBytes = 512;
inline constexpr size_t kMaxApiKeys = 10000;

enum class KeyRole : uint8_t { kCaller, kAdmin };  // an admin may also load and unload models

struct KeyHolder {
  std::string name;
  KeyRole role = KeyRole::kCaller;
};

// Immutable; any thread.
class ApiKeys {
 public:
  // One key a line, or a name, white space and the key, and then perhaps the word "admin"; '#'
  // begins a comment. Keys without a name are called key-1, key-2 by their place. `source` names
  // the text in errors, which never show a key. Errors: kInvalidArgument for no key at all, more
  // than kMaxApiKeys, a key that is too short or too long or there twice.
  static Result<ApiKeys> parse(std::string_view text, std::string_view source);

  // Errors: those of read_file() and parse().
  static Result<ApiKeys> load(const std::filesystem::path& path);

  // Whose key it is, or nullptr. Takes as long for every key that is not known.
  const KeyHolder* find(std::string_view key) const;

  size_t size() const { return keys_.size(); }

 private:
  using Digest = std::array<unsigned char, 32>;

  struct Key {
    KeyHolder holder;
    Digest digest;
  };

  ApiKeys();
  Digest digest(std::string_view key) const;

  Digest pepper_;  // of this process, so that digests tell nothing elsewhere
  std::vector<Key> keys_;
};

// The key that a request presents: "Bearer KEY" of Authorization, else x-api-key; empty when there
// is none.
std::string_view presented_key(std::string_view authorization, std::string_view x_api_key);

}  // namespace quern
