#include "serve/server_keys.h"

#include <algorithm>
#include <stdexcept>

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include "base/check.h"
#include "base/file.h"

namespace quern {
namespace {

constexpr std::string_view kBlank = " \t\r";

std::string_view trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(kBlank);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlank) - first + 1);
}

std::vector<std::string_view> words_of(std::string_view line) {
  std::vector<std::string_view> words;
  while (!line.empty()) {
    const size_t end = std::min(line.find_first_of(kBlank), line.size());
    words.push_back(line.substr(0, end));
    line = trimmed(line.substr(end));
  }
  return words;
}

}  // namespace

ApiKeys::ApiKeys() {
  if (RAND_bytes(pepper_.data(), static_cast<int>(pepper_.size())) != 1) {
    throw std::runtime_error("no random numbers from OpenSSL");
  }
}

ApiKeys::Digest ApiKeys::digest(std::string_view key) const {
  Digest out;
  unsigned int size = 0;
  const auto* bytes = reinterpret_cast<const unsigned char*>(key.data());
  QUERN_CHECK(HMAC(EVP_sha256(), pepper_.data(), static_cast<int>(pepper_.size()), bytes,
                   key.size(), out.data(), &size) != nullptr &&
              size == out.size());
  return out;
}

Result<ApiKeys> ApiKeys::parse(std::string_view text, std::string_view source) {
  ApiKeys keys;
  const auto wrong = [&](int line, const std::string& what) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{}: line {}: {}", source, line, what)};
  };
  for (int number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = trimmed(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.empty() || line.starts_with('#')) continue;
    const std::vector<std::string_view> words = words_of(line);
    const bool is_admin = words.size() == 3 && words[2] == "admin";
    if (words.size() > 2 && !is_admin) {
      return wrong(number, "expected a key, a name and a key, or a name, a key and \"admin\"");
    }
    const bool named = words.size() > 1;
    const std::string_view key = words[named ? 1 : 0];
    if (key.size() < kMinApiKeyBytes || key.size() > kMaxApiKeyBytes) {
      return wrong(number, fmt::format("a key has {} to {} characters, this one {}",
                                       kMinApiKeyBytes, kMaxApiKeyBytes, key.size()));
    }
    if (keys.find(key) != nullptr) return wrong(number, "the key is there twice");
    if (keys.size() == kMaxApiKeys) return wrong(number, "more than 10000 keys");
    keys.keys_.push_back({{named ? std::string(words[0]) : fmt::format("key-{}", keys.size() + 1),
                           is_admin ? KeyRole::kAdmin : KeyRole::kCaller},
                          keys.digest(key)});
  }
  if (keys.keys_.empty()) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{}: no key in it", source)};
  }
  return keys;
}

Result<ApiKeys> ApiKeys::load(const std::filesystem::path& path) {
  constexpr uint64_t kMaxBytes = 8 << 20;
  const std::string text = QUERN_TRY(read_file(path, kMaxBytes));
  return parse(text, path.string());
}

const KeyHolder* ApiKeys::find(std::string_view key) const {
  if (key.size() > kMaxApiKeyBytes) return nullptr;
  const Digest wanted = digest(key);
  const KeyHolder* holder = nullptr;
  for (const Key& known : keys_) {
    if (CRYPTO_memcmp(known.digest.data(), wanted.data(), wanted.size()) == 0)
      holder = &known.holder;
  }
  return holder;
}

std::string_view presented_key(std::string_view authorization, std::string_view x_api_key) {
  constexpr std::string_view kBearer = "bearer ";
  if (authorization.empty()) return x_api_key;
  if (authorization.size() <= kBearer.size()) return {};
  for (size_t i = 0; i < kBearer.size(); ++i) {
    const char c = authorization[i];
    if ((c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c) != kBearer[i]) return {};
  }
  return trimmed(authorization.substr(kBearer.size()));
}

}  // namespace quern
