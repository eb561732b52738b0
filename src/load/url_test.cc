#include "load/url.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quern {
namespace {

ServerUrl parse(const std::string& text) {
  const Result<ServerUrl> url = parse_server_url(text);
  EXPECT_TRUE(url) << text;
  return url ? *url : ServerUrl();
}

TEST(ServerUrl, HasSchemeHostPortAndPrefix) {
  const ServerUrl url = parse("https://example.org:8443/some/where/");
  EXPECT_EQ(url.scheme, UrlScheme::kHttps);
  EXPECT_EQ(url.host, "example.org");
  EXPECT_EQ(url.port, "8443");
  EXPECT_EQ(url.prefix, "/some/where");
  EXPECT_EQ(url.text(), "https://example.org:8443/some/where");
}

TEST(ServerUrl, FillsInWhatIsLeftOut) {
  EXPECT_EQ(parse("localhost:8080").text(), "http://localhost:8080");
  EXPECT_EQ(parse("http://a").text(), "http://a:80");
  EXPECT_EQ(parse("https://a").text(), "https://a:443");
}

TEST(ServerUrl, TakesOffTheVersion) {
  EXPECT_EQ(parse("http://a:1/v1").prefix, "");
  EXPECT_EQ(parse("http://a:1/v1/").prefix, "");
  EXPECT_EQ(parse("http://a:1/x/v1").prefix, "/x");
}

TEST(ServerUrl, PutsAddressesOfIpv6InBrackets) {
  const ServerUrl url = parse("http://[::1]:8080/");
  EXPECT_EQ(url.host, "::1");
  EXPECT_EQ(url.authority(), "[::1]:8080");
}

TEST(ServerUrl, RefusesWhatIsNone) {
  for (const char* text :
       {"", "http://", "ftp://a", "http://a:0", "http://a:65536", "http://a:x",
        "http://a:", "http://:80", "http://u:p@a", "http://a/?q", "http://a/#f", "http://a b",
        "http://[::1", "http://[::1]x", "http://a/\r\nX: y", "http://a:1:2"}) {
    const Result<ServerUrl> url = parse_server_url(text);
    ASSERT_FALSE(url) << text;
    EXPECT_THAT(url.error().message, testing::HasSubstr("is no address of a server")) << text;
  }
}

}  // namespace
}  // namespace quern
