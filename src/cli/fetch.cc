#include "cli/fetch.h"

#include <cerrno>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <system_error>

#include <curl/curl.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "base/check.h"
#include "cli/console.h"
#include "cli/sha256.h"

namespace quern {
namespace {

namespace fs = std::filesystem;

constexpr long kConnectTimeoutSeconds = 30;
constexpr long kStallSeconds = 60;  // fewer than kStallBytes a second for so long: give up
constexpr long kStallBytes = 100;
constexpr long kMaxRedirects = 10;
constexpr int kAttempts = 3;

struct Transfer {
  FunctionRef<bool(std::span<const std::byte>)> sink;
  FunctionRef<void()> on_restart;  // the server ignored the range: start again
  long long resume_from = 0;
  bool started = false;
  bool sink_failed = false;
  CURL* handle = nullptr;
};

size_t on_body(char* data, size_t size, size_t count, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  long status = 0;
  curl_easy_getinfo(transfer.handle, CURLINFO_RESPONSE_CODE, &status);
  if (status >= 300) return size * count;  // an error page: read and dropped
  transfer.started = true;
  if (transfer.sink(std::as_bytes(std::span(data, size * count)))) return size * count;
  transfer.sink_failed = true;
  return 0;
}

int on_progress(void*, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  try {
    check_interrupt();
  } catch (const Interrupted&) {
    return 1;
  }
  return 0;
}

using CurlHandle = std::unique_ptr<CURL, decltype(&curl_easy_cleanup)>;

CurlHandle make_handle(const FetchRequest& request, Transfer* transfer) {
  CurlHandle handle(curl_easy_init(), curl_easy_cleanup);
  QUERN_CHECK(handle != nullptr);
  CURL* curl = handle.get();
  transfer->handle = curl;
  curl_easy_setopt(curl, CURLOPT_URL, request.url.c_str());
  curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 1L);
  curl_easy_setopt(curl, CURLOPT_MAXREDIRS, kMaxRedirects);
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, kConnectTimeoutSeconds);
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, kStallSeconds);
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, kStallBytes);
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_USERAGENT, "quern/" QUERN_VERSION);
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, transfer);
  curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
  if (!request.bearer_token.empty()) {
    // libcurl drops these on a redirect to another host.
    curl_easy_setopt(curl, CURLOPT_HTTPAUTH, CURLAUTH_BEARER);
    curl_easy_setopt(curl, CURLOPT_XOAUTH2_BEARER, request.bearer_token.c_str());
  }
  if (transfer->resume_from > 0) {
    curl_easy_setopt(curl, CURLOPT_RESUME_FROM_LARGE, curl_off_t{transfer->resume_from});
  }
  return handle;
}

Result<Unit> check_status(const FetchRequest& request, long status) {
  if (status >= 200 && status < 300) return Unit{};
  const auto refuse = [&](ErrorCode code, const char* advice) {
    return Error{code, fmt::format("{}: HTTP status {}{}", request.url, status, advice)};
  };
  switch (status) {
    case 401:
      return refuse(ErrorCode::kUnauthenticated, "; set HF_TOKEN to an access token");
    case 403:
      return refuse(ErrorCode::kForbidden, "; the token has no access to this repository");
    case 404:
      return refuse(ErrorCode::kNotFound, "; check the name");
    case 429:
      return refuse(ErrorCode::kExhausted, "; too many requests, try again later");
    default:
      return refuse(ErrorCode::kInvalidArgument, "");
  }
}

// True when the transfer ended well, false when the connection broke and may be taken up again.
Result<bool> perform(const FetchRequest& request, Transfer* transfer) {
  const CurlHandle handle = make_handle(request, transfer);
  const CURLcode code = curl_easy_perform(handle.get());
  check_interrupt();
  if (transfer->sink_failed) return false;
  long status = 0;
  curl_easy_getinfo(handle.get(), CURLINFO_RESPONSE_CODE, &status);
  if (status != 0) QUERN_TRY(check_status(request, status));
  if (code == CURLE_OK) return true;
  if (code == CURLE_RANGE_ERROR) {  // libcurl stops before the body when the range was ignored
    transfer->on_restart();
    return false;
  }
  if (code == CURLE_URL_MALFORMAT || code == CURLE_UNSUPPORTED_PROTOCOL) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: {}", request.url, curl_easy_strerror(code))};
  }
  if (!transfer->started) {
    throw std::runtime_error(fmt::format("{}: {}", request.url, curl_easy_strerror(code)));
  }
  return false;
}

// A partial file that grows.
class PartialFile {
 public:
  explicit PartialFile(fs::path path) : path_(std::move(path)) {
    fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd_ < 0) fail("create");
    size_ = ::lseek(fd_, 0, SEEK_END);
    if (size_ < 0) fail("seek in");
  }
  PartialFile(const PartialFile&) = delete;
  PartialFile& operator=(const PartialFile&) = delete;
  ~PartialFile() { ::close(fd_); }

  int64_t size() const { return size_; }

  void append(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t written = ::write(fd_, bytes.data(), bytes.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) fail("write");
      size_ += written;
      bytes = bytes.subspan(static_cast<size_t>(written));
    }
  }

  void restart() {
    if (::ftruncate(fd_, 0) != 0 || ::lseek(fd_, 0, SEEK_SET) != 0) fail("truncate");
    size_ = 0;
  }

  void sync() {
    if (::fsync(fd_) != 0) fail("sync");
  }

 private:
  [[noreturn]] void fail(const char* action) const {
    throw std::system_error(errno, std::generic_category(),
                            fmt::format("{}: cannot {}", path_.string(), action));
  }

  fs::path path_;
  int fd_ = -1;
  int64_t size_ = 0;
};

// Why the content is not what was asked for, or empty.
std::string mismatch(const FetchRequest& request, const fs::path& path) {
  const uint64_t bytes = fs::file_size(path);
  if (request.bytes && bytes != *request.bytes) {
    return fmt::format("has {} bytes; expected {}", bytes, *request.bytes);
  }
  if (!request.sha256) return {};
  const std::string digest = sha256_of_file(path, [](int64_t) { check_interrupt(); });
  if (digest == *request.sha256) return {};
  return fmt::format("has SHA-256 {}; expected {}", digest, *request.sha256);
}

void download(const FetchRequest& request,
              PartialFile& file,
              FunctionRef<void(int64_t)> progress,
              Result<Unit>* result) {
  int fruitless = 0;
  while (true) {
    const int64_t before = file.size();
    if (request.bytes && static_cast<uint64_t>(before) >= *request.bytes) return;
    std::exception_ptr disk_failure;  // may not cross libcurl's C frames
    const auto sink = [&](std::span<const std::byte> bytes) {
      try {
        file.append(bytes);
      } catch (...) {
        disk_failure = std::current_exception();
        return false;
      }
      progress(file.size());
      return true;
    };
    const auto restart = [&] { file.restart(); };
    Transfer transfer{.sink = sink, .on_restart = restart, .resume_from = before};
    const Result<bool> done = perform(request, &transfer);
    if (disk_failure) std::rethrow_exception(disk_failure);
    if (!done) {
      *result = done.error();
      return;
    }
    if (*done) return;
    fruitless = file.size() > before ? 0 : fruitless + 1;
    if (fruitless >= kAttempts) {
      throw std::runtime_error(
          fmt::format("{}: the connection breaks again and again; run the "
                      "same command to continue",
                      request.url));
    }
  }
}

}  // namespace

Result<std::string> fetch_text(const FetchRequest& request, uint64_t max_bytes) {
  std::string text;
  const auto sink = [&](std::span<const std::byte> bytes) {
    if (text.size() + bytes.size() > max_bytes) return false;
    text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return true;
  };
  const auto restart = [&] { text.clear(); };
  Transfer transfer{.sink = sink, .on_restart = restart};
  const bool done = QUERN_TRY(perform(request, &transfer));
  if (done) return text;
  if (transfer.sink_failed) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: longer than {} bytes", request.url, max_bytes)};
  }
  throw std::runtime_error(fmt::format("{}: the connection broke", request.url));
}

Result<Unit> fetch_file(const FetchRequest& request,
                        const fs::path& path,
                        FunctionRef<void(int64_t)> progress) {
  if (fs::exists(path) && mismatch(request, path).empty()) {
    progress(static_cast<int64_t>(fs::file_size(path)));
    return Unit{};
  }
  fs::create_directories(path.parent_path());
  fs::path partial = path;
  partial += ".part";
  {
    PartialFile file(partial);
    Result<Unit> result = Unit{};
    download(request, file, progress, &result);
    if (!result) return result;
    file.sync();
  }
  const std::string wrong = mismatch(request, partial);
  if (!wrong.empty()) {
    fs::remove(partial);
    return Error{ErrorCode::kConflict,
                 fmt::format("{}: what arrived {}; nothing was kept", request.url, wrong)};
  }
  fs::rename(partial, path);
  return Unit{};
}

}  // namespace quern
