// The address of a server as people give it.
#pragma once

#include <string>

#include "base/result.h"

namespace quern {

enum class UrlScheme : unsigned char { kHttp, kHttps };

struct ServerUrl {
  UrlScheme scheme = UrlScheme::kHttp;
  std::string host{};  // without the brackets of an IPv6 address
  std::string port{};
  std::string prefix{};  // of every path: empty, or "/some/where"

  // "host:port", in brackets where the host is an IPv6 address.
  std::string authority() const;
  // As parse_server_url() reads it.
  std::string text() const;
};

// "http://127.0.0.1:8080", "https://host/prefix", "host:8080" (http); a "/v1" at the end is taken
// off. Errors: kInvalidArgument naming the text for anything else: other schemes, user names,
// queries, spaces.
Result<ServerUrl> parse_server_url(const std::string& text);

}  // namespace quern
