#include "cli/file_limit.h"

#include <algorithm>
#include <string>

#include <fmt/format.h>
#include <sys/resource.h>

namespace quern {

int64_t raise_file_limit(int64_t connections) {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  const auto wanted = static_cast<rlim_t>(connections + kSpareFiles);
  if (limit.rlim_cur < wanted) {
    limit.rlim_cur = std::min(wanted, limit.rlim_max);
    ::setrlimit(RLIMIT_NOFILE, &limit);
  }
  return static_cast<int64_t>(std::min(limit.rlim_cur, wanted)) - kSpareFiles;
}

Result<Unit> require_file_limit(int64_t connections, const char* flag) {
  const int64_t most = raise_file_limit(connections);
  if (most >= connections) return Unit{};
  const std::string instead = most > 0 ? fmt::format(" or give at most {}", most) : "";
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{} is {}; this process may open {} files: raise `ulimit -n`{}", flag,
                           connections, most + kSpareFiles, instead)};
}

}  // namespace quern
