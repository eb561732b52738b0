// Downloads over HTTP with libcurl: resumed, verified, complete under the final name or not there.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "base/function_ref.h"
#include "base/result.h"

namespace quern {

struct FetchRequest {
  std::string url;
  std::string bearer_token;           // empty: none; never sent on to another host
  std::optional<uint64_t> bytes;      // refused when the file ends up with another size
  std::optional<std::string> sha256;  // refused when the content has another digest
};

// The body of a GET, at most `max_bytes`. Errors: kNotFound (404), kUnauthenticated (401),
// kForbidden (403), kExhausted (429), kInvalidArgument (anything else that is not 2xx); the message
// names the URL. A network that fails throws std::runtime_error.
Result<std::string> fetch_text(const FetchRequest& request, uint64_t max_bytes);

// Downloads to `path`, by way of path + ".part" which a later call continues. A finished file of
// the right size and digest is left alone. A mismatch deletes the partial file and is kConflict.
// `progress` is told the bytes that are there. Throws as fetch_text() and on a full disk, after
// three attempts that made no progress.
Result<Unit> fetch_file(const FetchRequest& request,
                        const std::filesystem::path& path,
                        FunctionRef<void(int64_t bytes)> progress);

}  // namespace quern
