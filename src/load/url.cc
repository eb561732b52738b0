#include "load/url.h"

#include <algorithm>

#include <fmt/format.h>

namespace quern {
namespace {

constexpr int64_t kMaxPort = 65535;

bool is_port(const std::string& text) {
  if (text.empty() || text.size() > 5) return false;
  if (!std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; })) {
    return false;
  }
  const int64_t port = std::stoll(text);
  return port >= 1 && port <= kMaxPort;
}

// What may stand in a request line and a Host field without becoming something else.
bool is_plain(const std::string& text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    return c > 0x20 && c < 0x7f && c != '@' && c != '?' && c != '#' && c != '"' && c != '\\';
  });
}

// Splits "host:port" or "[address]:port"; false when it is neither.
bool take_authority(const std::string& authority, ServerUrl* url) {
  std::string port;
  if (authority.starts_with('[')) {
    const size_t close = authority.find(']');
    if (close == std::string::npos) return false;
    url->host = authority.substr(1, close - 1);
    port = authority.substr(close + 1);
  } else {
    const size_t colon = authority.find(':');
    url->host = authority.substr(0, colon);
    if (colon != std::string::npos) port = authority.substr(colon);
  }
  if (url->host.empty()) return false;
  if (port.empty()) {
    url->port = url->scheme == UrlScheme::kHttps ? "443" : "80";
    return true;
  }
  url->port = port.substr(1);
  return port.front() == ':' && is_port(url->port);
}

}  // namespace

std::string ServerUrl::authority() const {
  const bool ipv6 = host.find(':') != std::string::npos;
  return fmt::format("{}{}{}:{}", ipv6 ? "[" : "", host, ipv6 ? "]" : "", port);
}

std::string ServerUrl::text() const {
  return fmt::format("{}://{}{}", scheme == UrlScheme::kHttps ? "https" : "http", authority(),
                     prefix);
}

Result<ServerUrl> parse_server_url(const std::string& text) {
  const Error wrong{
      ErrorCode::kInvalidArgument,
      fmt::format("\"{}\" is no address of a server; expected one such as http://127.0.0.1:8080 or "
                  "https://host/prefix",
                  text)};
  ServerUrl url;
  std::string rest = text;
  if (const size_t colon = text.find("://"); colon != std::string::npos) {
    const std::string scheme = text.substr(0, colon);
    if (scheme != "http" && scheme != "https") return wrong;
    if (scheme == "https") url.scheme = UrlScheme::kHttps;
    rest = text.substr(colon + 3);
  }
  const size_t slash = std::min(rest.find('/'), rest.size());
  url.prefix = rest.substr(slash);
  if (!is_plain(rest) || !take_authority(rest.substr(0, slash), &url)) return wrong;
  const auto trim = [&] {
    while (url.prefix.ends_with('/')) url.prefix.pop_back();
  };
  trim();
  if (url.prefix.ends_with("/v1")) url.prefix.resize(url.prefix.size() - 3);
  trim();
  return url;
}

}  // namespace quern
