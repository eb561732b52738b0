#include "cli/sha256.h"

#include <array>
#include <fstream>
#include <system_error>
#include <vector>

#include <openssl/evp.h>

#include "base/check.h"

namespace quern {
namespace {

constexpr size_t kChunkBytes = size_t{1} << 20;

}  // namespace

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  QUERN_CHECK(context_ != nullptr);
  QUERN_CHECK(EVP_DigestInit_ex(static_cast<EVP_MD_CTX*>(context_), EVP_sha256(), nullptr) == 1);
}

Sha256::~Sha256() { EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(context_)); }

void Sha256::add(std::span<const std::byte> bytes) {
  QUERN_CHECK(EVP_DigestUpdate(static_cast<EVP_MD_CTX*>(context_), bytes.data(), bytes.size()) ==
              1);
}

std::string Sha256::hex() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned length = 0;
  QUERN_CHECK(EVP_DigestFinal_ex(static_cast<EVP_MD_CTX*>(context_), digest.data(), &length) == 1);
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (unsigned i = 0; i < length; ++i) {
    text += kDigits[digest[i] >> 4];
    text += kDigits[digest[i] & 15];
  }
  return text;
}

std::string sha256_of_file(const std::filesystem::path& path, FunctionRef<void(int64_t)> progress) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::system_error(errno, std::generic_category(), path.string());
  Sha256 hash;
  std::vector<char> chunk(kChunkBytes);
  int64_t done = 0;
  while (file.read(chunk.data(), static_cast<std::streamsize>(chunk.size())), file.gcount() > 0) {
    const auto count = static_cast<size_t>(file.gcount());
    hash.add(std::as_bytes(std::span(chunk.data(), count)));
    done += static_cast<int64_t>(count);
    progress(done);
  }
  if (file.bad()) throw std::system_error(EIO, std::generic_category(), path.string());
  return hash.hex();
}

}  // namespace quern
